// The list page: cameras are added and deleted, on a desk and on a phone, in light and in dark.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decoding, openChromium, poll, screenshot, startCamera, startStreamgate } from './helpers.mjs';

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
