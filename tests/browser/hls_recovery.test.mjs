// An HLS viewer outlives the camera's restarts, and goes back to WebRTC as soon as that works.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, pass, poll, screenshot, startCamera, startStreamgate } from './helpers.mjs';
import { inMode, openPlayer, playing, player } from './hls.mjs';

/** Marks the page and its source: both must be there afterwards. */
const mark = (page) => page.evaluate(() => { window.marked = document.querySelector('stream-player').video.src; });
const isSameSession = (page) => page.evaluate(() => Boolean(window.marked) && window.marked === document.querySelector('stream-player').video.src);
const isSamePage = (page) => page.evaluate(() => Boolean(window.marked));

/** Waits until the picture stands still, and returns its time. */
async function untilStill(page, deadlineMs) {
  let seen = -1;
  let since = performance.now();
  return poll('the picture stands still', deadlineMs, async () => {
    const { time } = await player(page);
    if (time !== seen) [seen, since] = [time, performance.now()];
    return performance.now() - since > 1500 && time;
  });
}

test('an open HLS session goes on after the camera was killed and came back', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam');
  await playing(page, 60, 30_000);
  assert.equal((await player(page)).mode, 'hls');
  await mark(page);
  await camera.kill();
  const time = await untilStill(page, 15_000);
  await poll('the viewer is told', 15_000, async () => (await player(page)).state === 'waiting');
  await screenshot(page, 'hls-camera-gone');
  await camera.start();
  await poll('it goes on', 30_000, async () => (await player(page)).time > time + 2);
  assert.ok(await isSameSession(page), 'the page and its session stayed');
  assert.equal((await player(page)).mode, 'hls');
  await poll('it is near live again', 15_000, async () => (await player(page)).stats?.latencyMs < 2000);
});

test('a camera that comes late and then stalls is waited for in the same page', async (t) => {
  const camera = await startCamera(t, 'video=h264,gop=25,audio=aac');
  await camera.kill();
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { query: '?mode=hls' });
  await poll('the viewer is told', 30_000, async () => (await player(page)).state === 'error');
  await camera.start();
  await playing(page, 30, 60_000);
  await mark(page);
  camera.command('stall /cam'); // the connection stays; a new one gets media
  await poll('the camera is dialled again', 30_000, async () => (await streamgate.stream('cam')).state === 'retrying');
  // After seconds of silence the buffer is empty: what plays from here on is new.
  const { time } = await player(page);
  await poll('it goes on', 60_000, async () => (await player(page)).time > time + 2);
  assert.ok(await isSameSession(page), 'the page and its session stayed');
});

test('a camera that is away for long is waited for in the same page', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam');
  await playing(page, 60, 30_000);
  await mark(page);
  await camera.kill();
  await poll('the viewer is told', 20_000, async () => (await player(page)).state === 'waiting');
  await pass(45_000); // longer than the player waits without asking what is wrong
  const now = await player(page);
  assert.match(now.state, /waiting|error/);
  assert.notEqual(now.message, '', 'the viewer is told');
  assert.ok(await page.evaluate(() => {
    const it = document.querySelector('stream-player');
    return it.video.readyState >= 2 || !it.shadowRoot.querySelector('#still').hidden;
  }), 'the last picture stays');
  await screenshot(page, 'hls-camera-away');
  await camera.start();
  await poll('it plays again', 60_000, async () => (await player(page)).state === 'playing');
  const { time } = await player(page);
  await poll('it goes on', 10_000, async () => (await player(page)).time > time + 2);
  assert.ok(await isSamePage(page));
});

test('the player returns to WebRTC when the camera stops sending B-frames', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam');
  await playing(page, 30, 30_000);
  assert.equal((await player(page)).mode, 'hls');
  await mark(page);
  camera.command('replace /cam clip=h264_main_g60');
  const now = await inMode(page, 'webrtc', 60_000);
  assert.equal(now.reason, '');
  assert.equal(now.badge, 'WebRTC');
  await playing(page, 60, 10_000);
  assert.ok(await isSamePage(page));
  await screenshot(page, 'hls-back-to-webrtc');
});

test('a WebRTC that cannot connect gives way to HLS and comes back unseen', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const before = (page) => page.addInitScript(() => {
    const Real = window.RTCPeerConnection;
    window.blocked = true; // no candidate gets out, as behind a firewall that lets no media pass
    window.RTCPeerConnection = class extends Real {
      constructor(options) { super(window.blocked ? { ...options, iceTransportPolicy: 'relay' } : options); }
    };
  });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { before });
  const now = await inMode(page, 'hls', 30_000);
  assert.match(now.reason, /WebRTC: No media connection/);
  await page.evaluate(() => {
    window.states = [];
    document.querySelector('stream-player').addEventListener('statechange', (event) => window.states.push(event.detail.state));
    window.blocked = false;
  });
  await inMode(page, 'webrtc', 60_000);
  assert.deepEqual(await page.evaluate(() => window.states), [], 'nothing of it was seen');
});

test('a WebRTC that connects without a picture gives way to HLS', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const before = (page) => page.addInitScript(() => {
    const Real = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Real {
      constructor(options) { super({ ...options, encodedInsertableStreams: true }); } // pictures wait for a reader that never comes
      setRemoteDescription(description) {
        for (const receiver of this.getReceivers()) receiver.createEncodedStreams();
        return super.setRemoteDescription(description);
      }
    };
  });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', { before });
  const now = await inMode(page, 'hls', 30_000);
  assert.match(now.reason, /WebRTC: connected, but no picture/);
});
