// What WebRTC cannot play goes on by HLS, by itself, and the viewer is told which way and why.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, openFirefox, pass, poll, screenshot, startCamera, startStreamgate } from './helpers.mjs';
import { inMode, openPlayer, playing, player } from './hls.mjs';

const WEBRTC_OFF = () => { delete window.RTCPeerConnection; };

test('a camera with B-frames plays by HLS in Chromium, less than a second late', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60,audio=aac');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam');
  const now = await inMode(page, 'hls', 20_000);
  assert.match(now.reason, /^WebRTC: .*B-frames/);
  assert.equal(now.badge, 'HLS');
  assert.equal(now.message, '', 'nothing to complain about');
  await playing(page, 60, 20_000);
  assert.equal((await player(page)).stats.transport, 'low latency');

  // hls.js' own estimate: from the end of the playlist, had it been fetched this instant, to the picture on screen. What the
  // camera and the segmenter took before is not in it.
  await poll('it has caught up', 20_000, async () => (await player(page)).stats?.latencyMs < 900);
  const seen = [];
  for (let i = 0; i < 10; i += 1) {
    await pass(500);
    seen.push((await player(page)).stats.latencyMs);
  }
  const part = await partTarget(streamgate, 'cam');
  t.diagnostic(`latency at parts of ${part} s: ${seen.map(Math.round).join(', ')} ms`);
  assert.ok(part <= 0.21, `parts of ${part} s`);
  assert.ok(Math.max(...seen) < 1000, `${seen.map(Math.round)} ms`);

  await page.keyboard.press('i');
  await poll('the overlay says mode and reason', 5_000, () => page.evaluate(() => {
    const text = document.querySelector('stream-player').shadowRoot.querySelector('#stats').textContent;
    return /HLS · low latency/.test(text) && /WebRTC: .*B-frames/.test(text);
  }));
  await screenshot(page, 'hls-chromium-b-frames');
});

test('H.265 that Chromium cannot decode is refused with what each way lacks', async (t) => {
  const camera = await startCamera(t, 'clip=h265_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam');
  const now = await poll('it explains', 40_000, async () => {
    const said = await player(page);
    return said.state === 'error' && said;
  });
  assert.match(now.message, /WebRTC: .*H265/);
  assert.match(now.message, /HLS: /);
  await screenshot(page, 'hls-chromium-h265');
});

test('Firefox without H.264 in its WebRTC plays H.264 by HLS', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60,audio=aac');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openFirefox(t), streamgate, 'cam');
  const canPlay = await page.evaluate(() => RTCRtpReceiver.getCapabilities('video').codecs.some((codec) => /h264/i.test(codec.mimeType)));
  const now = await playing(page, 60, 30_000);
  assert.equal(now.mode, canPlay ? 'webrtc' : 'hls');
  if (!canPlay) assert.match(now.reason, /^WebRTC: .*H264/);
  await screenshot(page, 'hls-firefox-h264');
});

test('Firefox plays H.265 by HLS', async (t) => {
  const camera = await startCamera(t, 'clip=h265_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openFirefox(t), streamgate, 'cam');
  const now = await playing(page, 60, 30_000);
  assert.equal(now.mode, 'hls');
  assert.equal(now.stats.videoCodec, 'H265');
  await screenshot(page, 'hls-firefox-h265');
});

test('a browser without WebRTC plays by HLS', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { before: (fresh) => fresh.addInitScript(WEBRTC_OFF) });
  const now = await playing(page, 30, 20_000);
  assert.equal(now.mode, 'hls');
  assert.match(now.reason, /no WebRTC/);
});

test('Chromium plays HLS by itself where that is chosen', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { query: '?mode=hls-native' });
  const now = await playing(page, 60, 30_000);
  assert.equal(now.mode, 'hls-native');
  assert.equal(now.reason, '', 'as it was asked for');
  await screenshot(page, 'hls-chromium-native');
});

test('a build without hls.js uses the HLS of the browser', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { before: withoutLibrary });
  const now = await playing(page, 30, 30_000);
  assert.equal(now.mode, 'hls-native');
  assert.match(now.reason, /WebRTC: .*B-frames.*HLS: .*without/);
});

test('a build without hls.js says so to a browser that needs it', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const before = async (page) => {
    await withoutLibrary(page);
    await page.addInitScript(() => { HTMLMediaElement.prototype.canPlayType = () => ''; });
  };
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { before });
  const now = await poll('it explains', 30_000, async () => {
    const said = await player(page);
    return said.state === 'error' && said;
  });
  assert.match(now.message, /hls\.js/);
  assert.match(now.message, /B-frames/);
  await screenshot(page, 'hls-missing-library');
});

test('a missing stream and a camera that is down are no reason to fall back', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  await camera.kill();
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  for (const name of ['cam', 'nothing here']) {
    const page = await openPlayer(browser, streamgate, name);
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    const now = await poll('it explains', 30_000, async () => {
      const said = await player(page);
      return said.state === 'error' && said;
    });
    assert.equal(now.mode, 'webrtc');
    assert.equal(now.reason, '');
    assert.deepEqual(asked.filter((url) => url.includes('/hls/')), []);
  }
});

async function withoutLibrary(page) {
  await page.route('**/assets/vendor/hls.mjs', (route) => route.fulfill({ status: 404, json: { error: 'unknown path' } }));
}

async function partTarget(streamgate, name) {
  const main = `${streamgate.url}/hls/${name}/index.m3u8`;
  const variant = (await (await fetch(main)).text()).split('\n').find((line) => line && !line.startsWith('#'));
  const playlist = await (await fetch(new URL(variant, main))).text();
  return Number(playlist.match(/PART-TARGET=([\d.]+)/)?.[1]);
}
