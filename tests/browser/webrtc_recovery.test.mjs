// Cameras fail; viewers stay and go on by themselves.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, openPlaying, poll, read, startCamera, startStreamgate } from './helpers.mjs';

/** Marks the page, to see that nobody reloaded it, and remembers its connection. */
const mark = (page) => page.evaluate(() => {
  window.marked = document.querySelector('stream-player').pc;
});
const isSameConnection = (page) => page.evaluate(() => Boolean(window.marked) && window.marked === document.querySelector('stream-player').pc);

/** Waits until frames have stopped coming and returns how many there are. */
async function untilStopped(page, deadlineMs) {
  let seen = -1;
  let since = performance.now();
  return poll('frames have stopped', deadlineMs, async () => {
    const frames = (await read(page)).video.framesDecoded;
    if (frames !== seen) [seen, since] = [frames, performance.now()];
    return performance.now() - since > 1000 && frames;
  });
}

test('a camera that is killed and comes back goes on in the same page and the same connection', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60,audio=opus');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await openPlaying(browser, streamgate, 'cam');
  await mark(page);
  await camera.kill();
  const frames = await untilStopped(page, 10_000);
  await poll('the player says that it waits', 15_000, async () => (await read(page)).state === 'waiting');
  await camera.start();
  await poll('frames come again', 30_000, async () => (await read(page)).video.framesDecoded > frames + 30);
  assert.ok(await isSameConnection(page), 'the viewer stayed connected');
  assert.equal((await read(page)).state, 'playing');
});

test('a camera that stops sending without closing is dialled again', async (t) => {
  const camera = await startCamera(t, 'video=h264,gop=25');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await openPlaying(browser, streamgate, 'cam');
  await mark(page);
  camera.command('stall /cam'); // the session it has now; a new one gets media
  const frames = await untilStopped(page, 10_000);
  await poll('frames come again', 30_000, async () => (await read(page)).video?.framesDecoded > frames + 25);
  assert.ok(await isSameConnection(page), 'the viewer stayed connected');
});

test('a picture that changes its size goes on', async (t) => {
  const camera = await startCamera(t, 'video=h264,gop=25');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await openPlaying(browser, streamgate, 'cam');
  assert.equal((await read(page)).video.frameWidth, 640);
  camera.command('size /cam 320x240');
  await poll('the new size is decoded', 15_000, async () => (await read(page)).video?.frameWidth === 320);
  const { framesDecoded } = (await read(page)).video;
  await poll('it goes on', 5_000, async () => (await read(page)).video.framesDecoded > framesDecoded + 25);
});
