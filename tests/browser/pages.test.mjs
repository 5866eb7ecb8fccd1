// The list page: cameras are added and deleted, on a desk and on a phone, in light and in dark.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decoding, openChromium, poll, screenshot, startCamera, startStreamgate } from './helpers.mjs';
import { inMode, openPlayer, player } from './hls.mjs';

const names = (page) => page.$$eval('#cards h2 a', (links) => links.map((link) => link.textContent));

test('a camera is added, watched and deleted on the page', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60,audio=opus');
  const streamgate = await startStreamgate(t);
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(`${streamgate.url}/`);
  await poll('the demo is listed', 10_000, async () => (await names(page)).includes('demo'));

  await page.getByRole('button', { name: 'Add camera' }).first().click();
  const dialog = page.locator('#add-dialog');
  await dialog.getByRole('textbox', { name: 'Name' }).fill('금곡IC');
  await dialog.getByRole('textbox', { name: 'Source address' }).first().fill(camera.url);
  await screenshot(page, 'home-add');
  await dialog.locator('[type=submit]').click();
  await poll('it is listed', 5_000, async () => (await names(page)).includes('금곡IC'));

  await page.getByRole('link', { name: '금곡IC' }).click();
  await decoding(page, 30, 15_000);
  await screenshot(page, 'player-added');
  await page.goto(`${streamgate.url}/`);
  await poll('its facts are listed', 10_000, () => page.evaluate(() =>
    [...document.querySelectorAll('#cards .card')].some((card) => /금곡IC/.test(card.textContent) && /640/.test(card.textContent) && /H\.?264/.test(card.textContent))));
  await screenshot(page, 'home-two-streams');

  await page.getByRole('button', { name: 'Delete 금곡IC' }).click();
  await page.locator('#delete-dialog [type=submit]').click();
  await poll('it is gone', 5_000, async () => !(await names(page)).includes('금곡IC'));
  assert.equal(await streamgate.stream('금곡IC'), null);
});

test('deleting a stream ends its viewer with a message', async (t) => {
  const camera = await startCamera(t, 'clip=h264_main_g60');
  const streamgate = await startStreamgate(t, { streams: { cam: camera.url, other: camera.url } });
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(streamgate.player('cam'));
  await decoding(page, 1, 15_000);
  const status = await page.evaluate(async () => (await fetch('/api/streams?src=cam', { method: 'DELETE' })).status);
  assert.ok(status >= 200 && status < 300, `status ${status}`);
  await poll('the player says so', 10_000, () => page.evaluate(() => document.querySelector('stream-player').state === 'error'));
});

test('live cameras have a picture that is renewed, a dead one says why; a viewer is disconnected from the list', async (t) => {
  const camera = await startCamera(t, 'gop=25');
  const streamgate = await startStreamgate(t, { config: `streams:
  cam: {sources: [${camera.url}], on_demand: false}
  dead: {sources: ["rtsp://127.0.0.1:9/cam"], on_demand: false}
` });
  const browser = await openChromium(t);
  const page = await browser.newPage();
  await page.goto(`${streamgate.url}/`);
  const card = (name) => page.locator('#cards .card', { has: page.getByRole('link', { name, exact: true }) });
  /** A thumbnail's pixels once it is shown: a picture, not one colour. */
  const thumbnail = () => card('cam').locator('.thumbnail').evaluate((image) => {
    if (image.hidden || !image.complete || !image.naturalWidth) return null;
    const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 36 });
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, 64, 36);
    const greens = context.getImageData(0, 0, 64, 36).data.filter((_, at) => at % 4 === 1);
    return Math.max(...greens) - Math.min(...greens) > 60 && { width: image.naturalWidth, said: greens.join() };
  });
  const first = await poll('there is a picture', 20_000, thumbnail);
  assert.equal(first.width, 480);

  await poll('the dead one says why', 20_000, async () => /Retrying/.test(await card('dead').textContent()) && /refuses connections/.test(await card('dead').textContent()));
  assert.deepEqual(await page.$$eval('img', (images) => images.filter((image) => image.checkVisibility() && !image.naturalWidth).length), 0, 'no broken picture');

  // Meanwhile two people watch.
  const watching = [];
  for (const mode of ['webrtc', 'mse']) {
    const watched = await openPlayer(browser, streamgate, 'cam', { query: `?mode=${mode}` });
    await inMode(watched, mode, 20_000);
    watching.push(watched);
  }
  await page.bringToFront();
  await card('cam').getByRole('button', { name: '2 viewers' }).click({ timeout: 10_000 });
  const rows = page.locator('#viewers li');
  await poll('both are listed with what they got', 10_000, async () => {
    const texts = await rows.allTextContents();
    return texts.length === 2 && /WebRTC · UDP/.test(texts[0]) && /MSE · WS/.test(texts[1]) && texts.every((text) => /127\.0\.0\.1:\d+/.test(text) && /H\.264 · [\d.]+ [kM]B sent · for \d+ s/.test(text));
  });
  await screenshot(page, 'home-viewers');
  await page.getByRole('button', { name: /Disconnect MSE/ }).click();
  await poll('one is left', 10_000, async () => (await rows.count()) === 1);
  assert.deepEqual((await streamgate.stream('cam')).consumers.map((one) => one.format_name), ['webrtc']);
  await poll('who was disconnected is told', 10_000, async () => /disconnected by the server/.test((await player(watching[1])).message));
  assert.equal((await player(watching[0])).state, 'playing', 'the other watches on');
  await page.getByRole('button', { name: 'Close' }).click();
  await screenshot(page, 'home-thumbnails');
  await poll('the picture is another one by now', 25_000, async () => {
    const now = await thumbnail();
    return now && now.said !== first.said;
  });
});

for (const colorScheme of ['light', 'dark']) {
  test(`a phone shows the list and the player without scrolling sideways, ${colorScheme}`, async (t) => {
    const streamgate = await startStreamgate(t);
    const browser = await openChromium(t);
    const context = await browser.newContext({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, colorScheme });
    const page = await context.newPage();
    for (const [name, url] of [['home', `${streamgate.url}/`], ['player', streamgate.player('demo')]]) {
      await page.goto(url);
      await decoding(page, 10, 10_000);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${name}: ${overflow} px too wide`);
      await screenshot(page, `phone-${name}-${colorScheme}`);
    }
  });
}
