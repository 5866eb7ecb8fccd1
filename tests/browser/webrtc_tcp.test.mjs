// Where UDP is blocked, the same session runs over ICE-TCP on the same port.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decoding, namespaceWithoutUdp, openChromium, openPlaying, pass, read, screenshot, startStreamgate } from './helpers.mjs';

const needsRoot = process.getuid() === 0 ? false : 'needs root: UDP is blocked in a network namespace';

test('with UDP blocked by the kernel it plays over TCP', { skip: needsRoot }, async (t) => {
  const namespace = namespaceWithoutUdp(t);
  const streamgate = await startStreamgate(t, { namespace });
  const browser = await openChromium(t, { namespace });
  const page = await openPlaying(browser, streamgate, 'demo');
  const before = await decoding(page, 30, 10_000);
  assert.equal(before.transport, 'tcp');
  await pass(5000);
  const after = await read(page);
  const rate = (after.video.framesDecoded - before.video.framesDecoded) / ((after.at - before.at) / 1000);
  assert.ok(Math.abs(rate - 30) < 3, `${rate.toFixed(2)} frames a second`);
  assert.equal(after.video.freezeCount, before.video.freezeCount);
  await screenshot(page, 'player-tcp');
});
