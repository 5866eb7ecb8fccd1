// The last rungs of the player's ladder: pictures over the WebSocket, and by plain HTTP where there is none.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, pass, poll, screenshot, startCamera, startStreamgate } from './helpers.mjs';
import { inMode, openPlayer, player } from './hls.mjs';

/** A browser that has nothing that plays video. */
const NO_VIDEO = () => {
  delete window.RTCPeerConnection;
  delete window.MediaSource;
  delete window.ManagedMediaSource;
  HTMLMediaElement.prototype.canPlayType = () => '';
};
const NO_WEBSOCKET = () => {
  const Real = window.WebSocket;
  window.WebSocket = class extends Real { constructor() { super(new URL('/api/none', location).href.replace('http', 'ws')); } };
};

/** What is on screen, as grey pixels of a small copy. */
const pixels = (page) => page.evaluate(() => {
  const { video } = document.querySelector('stream-player');
  const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 36 });
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0, 64, 36);
  const { data } = context.getImageData(0, 0, 64, 36);
  return Array.from({ length: data.length / 4 }, (_, i) => Math.round((data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3));
});

/** Waits until the picture has become another one as often; none of them is empty. */
async function changes(page, times, deadlineMs) {
  let before = await pixels(page);
  for (let i = 0; i < times; i += 1) {
    before = await poll(`change ${i + 1} of ${times} of the picture`, deadlineMs, async () => {
      const now = await pixels(page);
      const differing = now.filter((grey, at) => Math.abs(grey - before[at]) > 40).length;
      assert.ok(Math.max(...now) - Math.min(...now) > 60, 'a picture, not one colour');
      return differing >= 3 && now;
    });
  }
}

test('where nothing plays video there are pictures by WebSocket, and by HTTP without one', async (t) => {
  const camera = await startCamera(t, 'gop=25');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await openPlayer(browser, streamgate, 'cam', { query: '', before: (fresh) => fresh.addInitScript(NO_VIDEO) });
  const now = await inMode(page, 'mjpeg', 30_000);
  assert.equal(now.badge, 'MJPEG');
  assert.match(now.reason, /^WebRTC: .*MSE: .*HLS: /);
  await changes(page, 3, 10_000);
  const { stats } = await player(page);
  assert.deepEqual([stats.transport, stats.videoCodec, stats.width, stats.height], ['WebSocket', 'JPEG', 640, 360]);
  await page.keyboard.press('i');
  await screenshot(page, 'pictures-mjpeg');

  const viewers = async () => (await streamgate.stream('cam')).consumers.filter((one) => one.format_name === 'mjpeg');
  const [viewer] = await viewers();
  await page.evaluate(() => document.querySelector('stream-player').pause());
  let last = -1;
  await poll('nothing is sent any more', 15_000, async () => {
    await pass(1_500); // longer than from one keyframe to the next
    const before = last;
    [{ packets: last }] = await viewers();
    return before === last;
  });
  await page.evaluate(() => document.querySelector('stream-player').play());
  await inMode(page, 'mjpeg', 10_000);
  await changes(page, 2, 10_000);
  assert.deepEqual((await viewers()).map((one) => one.id), [viewer.id], 'the same session');
  await page.close();

  const poor = await openPlayer(browser, streamgate, 'cam', { query: '', before: async (fresh) => {
    await fresh.addInitScript(NO_VIDEO);
    await fresh.addInitScript(NO_WEBSOCKET);
  } });
  assert.match((await inMode(poor, 'picture', 30_000)).reason, /MJPEG: no WebSocket/);
  await changes(poor, 3, 10_000);
  await screenshot(poor, 'pictures-http');
  await poor.close();
  await poll('nobody is left', 15_000, async () => (await streamgate.stream('cam')).consumers.every((one) => one.format_name === 'hls'));
});

test('an MJPEG camera is shown as it is, and as video once it sends some', async (t) => {
  const camera = await startCamera(t, 'video=jpeg,fps=10');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { query: '' });
  const now = await inMode(page, 'mjpeg', 30_000);
  assert.match(now.reason, /WebRTC: .*JPEG/);
  await poll('each picture is shown', 15_000, async () => (await player(page)).stats?.fps > 8);
  await changes(page, 3, 5_000);
  // What can be shown only where it begins (MSE) is tried unseen, too.
  await page.evaluate(() => {
    const it = document.querySelector('stream-player');
    it.mode = 'mse,mjpeg';
    window.errors = [];
    it.addEventListener('error', (event) => window.errors.push(event.detail.title));
  });
  await inMode(page, 'mjpeg', 30_000);
  camera.command('replace /cam clip=h264_main_g60');
  const video = await inMode(page, 'mse', 60_000);
  assert.equal(video.reason, '');
  assert.deepEqual(await page.evaluate(() => window.errors), []);
  const { time } = video;
  await poll('it goes on', 15_000, async () => (await player(page)).time > time + 1);
});
