// What the HLS tests share: the player's own account of itself.

import { poll } from './helpers.mjs';

/** Opens a stream's player page; `before` may prepare the page. MSE is left out: these tests are of HLS. */
export async function openPlayer(browser, streamgate, name, { query = '?mode=webrtc,hls', before = null } = {}) {
  const page = await browser.newPage();
  await before?.(page);
  await page.goto(streamgate.player(name, query));
  return page;
}

/** What the player says, and the badge it shows. */
export function player(page) {
  return page.evaluate(() => {
    const it = document.querySelector('stream-player');
    if (!it?.shadowRoot) return { state: null };
    const badge = it.shadowRoot.querySelector('#mode');
    return {
      state: it.state, message: it.message, mode: it.mode, reason: it.reason, stats: it.stats,
      badge: badge.hidden ? null : badge.textContent, time: it.video.currentTime,
    };
  });
}

export function inMode(page, mode, deadlineMs) {
  return poll(`it plays by ${mode}`, deadlineMs, async () => {
    const now = await player(page);
    return now.state === 'playing' && now.mode === mode && now;
  });
}

/** Waits until this many pictures of the current session are decoded. */
export function playing(page, frames, deadlineMs) {
  return poll(`${frames} pictures are decoded`, deadlineMs, async () => {
    const now = await player(page);
    return now.state === 'playing' && now.stats?.framesDecoded >= frames && now;
  });
}
