// A browser plays cameras over WebRTC: smoothly, at once, with sound.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decoding, openChromium, openPlaying, pass, poll, read, screenshot, startCamera, startStreamgate } from './helpers.mjs';

const TEN_SECONDS = 10_000;

/** Two readings ten seconds apart, and what lies between them. */
async function overTenSeconds(page) {
  const before = await read(page);
  await pass(TEN_SECONDS);
  const after = await read(page);
  const seconds = (after.at - before.at) / 1000;
  const grown = (kind, field) => after[kind][field] - before[kind][field];
  return { before, after, seconds, grown };
}

function assertSmooth({ before, after, seconds, grown }, fps) {
  const rate = grown('video', 'framesDecoded') / seconds;
  assert.ok(Math.abs(rate - fps) < fps * 0.05, `${rate.toFixed(2)} frames a second, ${fps} expected`);
  assert.equal(after.video.freezeCount, before.video.freezeCount, 'freezes');
  assert.equal(after.video.totalFreezesDuration, before.video.totalFreezesDuration, 'time frozen');
  assert.equal(grown('video', 'packetsLost'), 0, 'packets lost');
  assert.equal(after.state, 'playing');
}

function assertSound({ after, seconds, grown }, codec) {
  assert.equal(after.audio.codec, codec);
  // Chromium counts what it plays out, at its own rate.
  const samples = grown('audio', 'totalSamplesReceived');
  assert.ok(samples > seconds * 8000 * 0.9, `${samples} samples in ${seconds} s`);
  const concealed = grown('audio', 'concealedSamples') / samples;
  assert.ok(concealed < 0.02, `${(concealed * 100).toFixed(1)} % of the samples were made up`);
  assert.ok(grown('audio', 'totalAudioEnergy') > 0, 'silence');
}

test('the demo camera plays within two seconds, smoothly and with sound', async (t) => {
  const streamgate = await startStreamgate(t);
  const browser = await openChromium(t);
  const page = await browser.newPage();
  const start = performance.now();
  await page.goto(`${streamgate.url}/`);
  await decoding(page, 1, 10_000);
  const took = performance.now() - start;
  assert.ok(took < 2000, `the first picture came after ${took.toFixed(0)} ms`);
  await screenshot(page, 'home-demo');

  await page.goto(streamgate.player('demo', '?muted=0'));
  await decoding(page, 30, 10_000);
  const span = await overTenSeconds(page);
  assertSmooth(span, 30);
  assertSound(span, 'audio/opus');
  assert.equal(span.after.video.codec, 'video/H264');
  assert.deepEqual([span.after.video.frameWidth, span.after.video.frameHeight], [1280, 720]);
  assert.equal(span.after.transport, 'udp');
  await screenshot(page, 'player-demo');
});

test('a camera with PCMA sound plays with sound', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60,audio=pcma');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const browser = await openChromium(t);
  const page = await openPlaying(browser, streamgate, 'cam', '?muted=0');
  await decoding(page, 30, 10_000);
  const span = await overTenSeconds(page);
  assertSmooth(span, 30);
  assertSound(span, 'audio/PCMA');
  await screenshot(page, 'player-pcma');
});

for (const clip of ['h264_baseline_g60', 'h264_high_g60']) {
  test(`${clip.split('_')[1]} profile plays, sound that WebRTC can't carry is left out`, async (t) => {
    const camera = await startCamera(t, `clip=${clip},audio=aac`);
    const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
    const browser = await openChromium(t);
    const page = await openPlaying(browser, streamgate, 'cam');
    const now = await decoding(page, 60, 15_000);
    assert.ok(!now.audio || now.audio.packetsReceived === 0, 'AAC has no WebRTC payload');
    assert.equal(now.video.packetsLost, 0);
  });
}

test('the first picture comes within 300 ms, whenever a viewer joins a GOP of four seconds', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g120,audio=opus');
  const streamgate = await startStreamgate(t, { config: `streams:\n  cam:\n    sources: [${camera.url}]\n    on_demand: false\n` });
  await poll('the camera is live', 15_000, async () => (await streamgate.stream('cam'))?.state === 'live');
  const browser = await openChromium(t);
  // Loads code and codec, so that what is measured is the stream.
  await (await openPlaying(browser, streamgate, 'cam')).close();
  const took = [];
  for (let n = 0; n < 6; n += 1) {
    await pass(Math.random() * 4000);
    const page = await openPlaying(browser, streamgate, 'cam');
    const now = await poll('the first frame is shown', 5_000, async () => {
      const reading = await read(page);
      return reading.firstFrameMs !== null && reading;
    });
    took.push(Math.round(now.firstFrameMs));
    await page.close();
  }
  t.diagnostic(`first picture after ${took.join(', ')} ms`);
  assert.ok(took.every((ms) => ms < 300), `first picture after ${took.join(', ')} ms`);
});
