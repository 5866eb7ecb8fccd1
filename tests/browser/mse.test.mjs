// Fragments over the WebSocket: every codec, near live for as long as one watches, between WebRTC and HLS.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, openFirefox, pass, poll, screenshot, startCamera, startStreamgate } from './helpers.mjs';
import { inMode, openPlayer, playing, player } from './hls.mjs';

const MSE = { query: '?mode=mse' };
const ANY = { query: '' };
const LIVE_FOR_S = Number(process.env.MSE_SECONDS ?? 20);

/** Where picture and sound are in the buffer, and how many bytes of each were decoded. */
const media = (page) => page.evaluate(() => {
  const { video } = document.querySelector('stream-player');
  const { buffered, currentTime } = video;
  const ranges = [...Array(buffered.length).keys()].map((i) => [buffered.start(i), buffered.end(i)]);
  return {
    currentTime, ranges, rate: video.playbackRate, at: performance.now(),
    picture: video.webkitVideoDecodedByteCount, sound: video.webkitAudioDecodedByteCount,
  };
});

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

test('H.264 with every kind of sound plays in Chromium, live for as long as one watches', async (t) => {
  const browser = await openChromium(t);
  const streams = {};
  for (const audio of ['aac', 'opus', 'pcma']) streams[audio] = (await startCamera(t, `clip=h264_main_g60,audio=${audio}`)).url;
  const streamgate = await startStreamgate(t, { streams });
  const pages = [];
  for (const [audio, codec] of [['aac', 'AAC'], ['opus', 'Opus'], ['pcma', 'FLAC']]) {
    const page = await openPlayer(browser, streamgate, audio, MSE);
    const now = await playing(page, 60, 30_000);
    assert.equal(now.mode, 'mse');
    assert.equal(now.badge, 'MSE');
    assert.deepEqual([now.stats.videoCodec, now.stats.audioCodec], ['H264', codec]);
    await poll(`${audio} is decoded`, 15_000, async () => (await media(page)).sound > 0);
    if (audio === 'aac') pages.push(page);
    else await page.close();
  }
  const [page] = pages;
  await page.bringToFront();
  await poll('it has caught up', 20_000, async () => (await player(page)).stats?.latencyMs < 900);
  const begin = await media(page);
  const seen = [];
  for (let i = 0; i < LIVE_FOR_S; i += 1) {
    await pass(1_000);
    const { latencyMs } = (await player(page)).stats;
    const { ranges } = await media(page);
    seen.push(latencyMs);
    assert.equal(ranges.length, 1, `holes: ${JSON.stringify(ranges)}`);
    assert.ok(ranges[0][1] - ranges[0][0] < 20, 'the past is removed');
  }
  const end = await media(page);
  const drift = (end.currentTime - begin.currentTime) - (end.at - begin.at) / 1000;
  t.diagnostic(`behind the newest fragment: ${seen.map(Math.round).join(', ')} ms; drift ${drift.toFixed(2)} s in ${LIVE_FOR_S} s`);
  const early = median(seen.slice(0, seen.length / 2));
  const late = median(seen.slice(seen.length / 2));
  assert.ok(Math.abs(late - early) < 500, `${early} ms behind, then ${late} ms`);
  seen.sort((a, b) => a - b);
  assert.ok(seen[Math.floor(seen.length * 0.8)] < 1000, `${seen.map(Math.round)} ms`);
  assert.ok(Math.abs(drift) < 1.5, `${drift} s in ${LIVE_FOR_S} s`);
  assert.ok(end.picture > begin.picture && end.sound > begin.sound);
  await screenshot(page, 'mse-chromium-aac');
});

test('Firefox plays H.265 by MSE, and another codec in the same session', async (t) => {
  const camera = await startCamera(t, 'clip=h265_main_g60,audio=aac');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openFirefox(t), streamgate, 'cam', ANY);
  const now = await playing(page, 60, 40_000);
  assert.equal(now.mode, 'mse');
  assert.equal(now.stats.videoCodec, 'H265');
  assert.match(now.reason, /^WebRTC: /);
  await screenshot(page, 'mse-firefox-h265');
  const [{ id }] = (await streamgate.stream('cam')).consumers;
  camera.command('replace /cam clip=h264_main_g60,audio=opus');
  await poll('the new codec is played', 40_000, async () => (await player(page)).stats?.videoCodec === 'H264');
  const { time } = await player(page);
  await poll('it goes on', 20_000, async () => (await player(page)).time > time + 2);
  assert.equal((await streamgate.stream('cam')).consumers[0].id, id, 'the same viewer');
});

test('B-frames play by MSE, and a pause is no new session', async (t) => {
  const camera = await startCamera(t, 'clip=h264_high_bf3_g60,audio=opus');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', ANY);
  const now = await inMode(page, 'mse', 30_000);
  assert.match(now.reason, /^WebRTC: .*B-frames/);
  await playing(page, 60, 20_000);
  const [viewer] = (await streamgate.stream('cam')).consumers;
  await page.evaluate(() => document.querySelector('stream-player').pause());
  assert.equal((await player(page)).state, 'paused');
  const sent = async () => (await streamgate.stream('cam')).consumers[0]?.bytes_send;
  let last = await sent();
  await poll('nothing is sent any more', 15_000, async () => {
    await pass(700);
    const before = last;
    last = await sent();
    return before === last;
  });
  const { time } = await player(page);
  await page.evaluate(() => document.querySelector('stream-player').play());
  await poll('it goes on at live', 20_000, async () => {
    const said = await player(page);
    return said.state === 'playing' && said.time > time + 2 && said.stats?.latencyMs < 1000;
  });
  const consumers = (await streamgate.stream('cam')).consumers;
  assert.deepEqual(consumers.map((consumer) => consumer.id), [viewer.id]);
  await page.evaluate(() => document.querySelector('stream-player').remove());
  await poll('nobody is left', 15_000, async () => (await streamgate.stream('cam')).consumers.length === 0);
});

test('without a WebSocket it is HLS, without WebRTC media it is MSE and WebRTC again once it works', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60,audio=opus');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const closed = await openPlayer(browser, streamgate, 'cam', {
    query: '?mode=mse,hls',
    before: (page) => page.addInitScript(() => {
      const Real = window.WebSocket;
      window.WebSocket = class extends Real { constructor(url) { super(new URL('/api/none', url)); } };
    }),
  });
  assert.match((await inMode(closed, 'hls', 30_000)).reason, /^MSE: no WebSocket/);
  await closed.close();

  // Media that never gets through: the browser is given no candidate until it may have them.
  const page = await openPlayer(browser, streamgate, 'cam', {
    query: '',
    before: (fresh) => fresh.addInitScript(() => {
      const real = RTCPeerConnection.prototype.setRemoteDescription;
      RTCPeerConnection.prototype.setRemoteDescription = function set({ type, sdp }) {
        return real.call(this, { type, sdp: window.open_way ? sdp : sdp.replace(/a=candidate:.*\r\n/g, '') });
      };
    }),
  });
  const began = Date.now();
  const now = await inMode(page, 'mse', 30_000);
  t.diagnostic(`MSE played after ${Date.now() - began} ms`);
  assert.match(now.reason, /^WebRTC: /);
  await page.evaluate(() => { window.open_way = true; });
  await inMode(page, 'webrtc', 60_000);
  await poll('MSE has ended', 15_000, async () => (await streamgate.stream('cam')).consumers.every((one) => one.format_name === 'webrtc'));
});
