// What cameras send besides H.264 that stays the same: sound of each kind, another size, another codec.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openChromium, openFirefox, poll, startCamera, startStreamgate } from './helpers.mjs';
import { openPlayer, playing, player } from './hls.mjs';

const HLS = { query: '?mode=hls' };

for (const [audio, codec] of [['aac', 'AAC'], ['opus', 'Opus'], ['pcma', 'FLAC']]) {
  test(`${audio} plays in both browsers`, async (t) => {
    const camera = await startCamera(t, `clip=h264_high_bf3_g60,audio=${audio}`);
    const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
    for (const open of [openChromium, openFirefox]) {
      const page = await openPlayer(await open(t), streamgate, 'cam', HLS);
      const now = await playing(page, 60, 30_000);
      assert.equal(now.mode, 'hls');
      assert.equal(now.stats.audioCodec, codec);
      await poll('sound is decoded', 10_000, () => page.evaluate(async () => {
        const { video } = document.querySelector('stream-player');
        return (video.webkitAudioDecodedByteCount ?? 0) > 0 || video.mozHasAudio === true;
      }));
    }
  });
}

test('a picture that changes its size goes on in the same session', async (t) => {
  const camera = await startCamera(t, 'video=h264,gop=25');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openChromium(t), streamgate, 'cam', HLS);
  assert.equal((await playing(page, 30, 30_000)).stats.width, 640);
  const source = await page.evaluate(() => document.querySelector('stream-player').video.src);
  camera.command('size /cam 320x240');
  await poll('the new size is shown', 30_000, async () => (await player(page)).stats?.width === 320);
  const { time } = await player(page);
  await poll('it goes on', 10_000, async () => (await player(page)).time > time + 2);
  assert.equal(await page.evaluate(() => document.querySelector('stream-player').video.src), source);
});

test('a camera that changes to H.265 goes on in the same session', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url } });
  const page = await openPlayer(await openFirefox(t), streamgate, 'cam', HLS);
  assert.equal((await playing(page, 30, 30_000)).stats.videoCodec, 'H264');
  const source = await page.evaluate(() => document.querySelector('stream-player').video.src);
  camera.command('replace /cam clip=h265_main_g60');
  await poll('the new codec is played', 30_000, async () => (await player(page)).stats?.videoCodec === 'H265');
  const { time } = await player(page);
  await poll('it goes on', 15_000, async () => (await player(page)).time > time + 2);
  assert.equal(await page.evaluate(() => document.querySelector('stream-player').video.src), source);
});
