// When a stream can't be played, the viewer is told why.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, openFirefox, poll, read, screenshot, startCamera, startStreamgate } from './helpers.mjs';
import { playing } from './hls.mjs';

/** The error panel's text, once it is shown. */
function explanation(page, deadlineMs = 20_000) {
  return poll('the player explains', deadlineMs, () => page.evaluate(() => {
    const player = document.querySelector('stream-player');
    const panel = player?.shadowRoot.querySelector('#panel');
    return panel && !panel.hidden && player.message ? `${player.message}\n${panel.textContent}` : null;
  }));
}

test('an unknown stream is said to be unknown', async (t) => {
  const streamgate = await startStreamgate(t);
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(streamgate.player('nothing here'));
  assert.match(await explanation(page), /nothing here/);
  await screenshot(page, 'player-unknown-stream');
});

test('a camera with B-frames is refused in words', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(streamgate.player('cam', '?mode=webrtc'));
  assert.match(await explanation(page, 30_000), /B-frames/);
  await screenshot(page, 'player-b-frames');
});

test('H.265 that the browser cannot play is refused with both codec lists', async (t) => {
  const camera = await startCamera(t, 'clip=h265_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(streamgate.player('cam', '?mode=webrtc'));
  const words = await explanation(page);
  assert.match(words, /H265/);
  assert.match(words, /H264/);
  await screenshot(page, 'player-h265');
});

test('a camera that does not answer is said not to answer', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  await camera.kill();
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(streamgate.player('cam'));
  assert.match(await explanation(page, 30_000), /refused|connect|unreachable|answer/i);
  await screenshot(page, 'player-camera-down');
  await camera.start();
  await poll('it plays when the camera is there', 40_000, async () => (await read(page)).video?.framesDecoded > 0);
});

test('Firefox lists streams, and says what it lacks to play H.264', async (t) => {
  const streamgate = await startStreamgate(t);
  const browser = await openFirefox(t);
  const page = await browser.newPage();
  await page.goto(`${streamgate.url}/`);
  await poll('the demo is listed', 15_000, () => page.evaluate(() => document.querySelector('#cards h2 a')?.textContent === 'demo'));
  await screenshot(page, 'home-firefox');
  await page.goto(streamgate.player('demo', '?mode=webrtc'));
  const canPlay = await page.evaluate(() => RTCRtpReceiver.getCapabilities('video').codecs.some((codec) => /h264/i.test(codec.mimeType)));
  if (canPlay) {
    await poll('it plays', 20_000, async () => (await read(page)).video?.framesDecoded > 0);
  } else {
    assert.match(await explanation(page), /H264/);
  }
  await screenshot(page, 'player-firefox');
  // Pictures need no video decoder.
  await page.goto(streamgate.player('demo', '?mode=mjpeg'));
  const shown = await playing(page, 2, 20_000);
  assert.deepEqual([shown.mode, shown.stats.width, shown.stats.height], ['mjpeg', 1280, 720]);
  await screenshot(page, 'pictures-firefox');
});
