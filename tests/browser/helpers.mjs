// What browser tests share: the program, cameras, browsers, and waiting for a condition. Nothing here is a mock.

import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

const HERE = dirname(fileURLToPath(import.meta.url));
const TOOLS = join(HERE, '..', 'tools');
const ARTIFACTS = join(HERE, '..', 'artifacts');
const BINARY = process.env.STREAMGATE_BIN ?? join(HERE, '..', '..', 'target', 'debug', 'streamgate');
const START_DEADLINE_MS = 20_000;
const STOP_DEADLINE_MS = 5_000;
const POLL_MS = 50;
const LOG_LINES = 400;

const CHROMIUM_ARGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
];

const delay = (ms) => new Promise((done) => setTimeout(done, ms));

/** Polls until `check` gives something truthy, and returns that; fails with `what` and the last thing seen. */
export async function poll(what, deadlineMs, check) {
  const end = performance.now() + deadlineMs;
  for (;;) {
    let last;
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error.message;
    }
    if (performance.now() > end) throw new Error(`still not so after ${deadlineMs} ms: ${what} (last: ${JSON.stringify(last)})`);
    await delay(POLL_MS);
  }
}

/** Lets time pass where time itself is the matter: rates over a span, moments to join at. */
export const pass = delay;

/** Runs a command in a network namespace, or as it is. */
function inNamespace(namespace, command, args) {
  return namespace ? ['ip', ['netns', 'exec', namespace, command, ...args]] : [command, args];
}

/** Ends a process: politely, then not. */
async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS);
  await exited;
  clearTimeout(killer);
}

/** The first value that `find` gives for a line of `stream`, before a deadline. */
function firstLine(child, stream, find, what) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error(`${what}: not ready in ${START_DEADLINE_MS} ms`)), START_DEADLINE_MS);
    child.once('exit', (code) => fail(new Error(`${what}: ended with ${code}`)));
    child.once('error', fail);
    createInterface({ input: stream }).on('line', (line) => {
      const found = find(line);
      if (found === null || found === undefined) return;
      clearTimeout(timer);
      done(found);
    });
  });
}

/** Starts Streamgate in a folder of its own. `streams`: names and source URLs. Without any: the demo camera. */
export async function startStreamgate(t, { streams = {}, config = null, namespace = null } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'streamgate-'));
  const args = ['--listen', '127.0.0.1:0', ...Object.entries(streams).map(([name, url]) => `--stream=${name}=${url}`)];
  if (config) {
    await writeFile(join(folder, 'streamgate.yaml'), config);
    args.push('-c', 'streamgate.yaml');
  }
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('STREAMGATE_')));
  const child = spawn(...inNamespace(namespace, BINARY, args), { cwd: folder, env, stdio: ['ignore', 'ignore', 'pipe'] });
  const log = [];
  createInterface({ input: child.stderr }).on('line', (line) => {
    log.push(line);
    if (log.length > LOG_LINES) log.shift();
  });
  t.after(async () => {
    await end(child);
    await rm(folder, { recursive: true, force: true });
    if (!t.passed) t.diagnostic(`streamgate's log:\n${log.join('\n')}`);
  });
  const port = await firstLine(child, child.stderr, (line) => line.match(/listening on http:\/\/127\.0\.0\.1:(\d+)\//)?.[1], 'streamgate');
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    log,
    player: (name, query = '') => `${url}/stream/player/${encodeURIComponent(name)}${query}`,
    async stream(name) {
      const response = await fetch(`${url}/api/streams?src=${encodeURIComponent(name)}`);
      return response.ok ? response.json() : null;
    },
  };
}

let clips = null;

/** An RTSP camera on loopback at /cam; what a spec may say stands at the top of tests/tools/cameras.py. */
export async function startCamera(t, spec) {
  clips ??= execFileSync(join(TOOLS, 'make-clips.sh'), { encoding: 'utf8' }).trim();
  const camera = { url: '', port: 0, child: null };
  camera.start = async () => {
    const args = [join(TOOLS, 'cameras.py'), '--media', clips, '--port', String(camera.port), `/cam=${spec}`];
    camera.child = spawn('/usr/bin/python3', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    camera.port = await firstLine(camera.child, camera.child.stdout, (line) => line.match(/^ready rtsp:\/\/127\.0\.0\.1:(\d+)/)?.[1], 'camera');
    camera.url = `rtsp://127.0.0.1:${camera.port}/cam`;
  };
  camera.kill = async () => {
    const exited = once(camera.child, 'exit');
    camera.child.kill('SIGKILL');
    await exited;
  };
  camera.command = (line) => camera.child.stdin.write(`${line}\n`);
  t.after(() => end(camera.child));
  await camera.start();
  return camera;
}

/** A Chromium with a fresh profile. */
export async function openChromium(t, { namespace = null } = {}) {
  let executablePath = '/usr/bin/chromium';
  if (namespace) {
    const folder = await mkdtemp(join(tmpdir(), 'streamgate-chromium-'));
    executablePath = join(folder, 'chromium');
    await writeFile(executablePath, `#!/bin/sh\nexec ip netns exec ${namespace} /usr/bin/chromium "$@"\n`, { mode: 0o755 });
    t.after(() => rm(folder, { recursive: true, force: true }));
  }
  const browser = await chromium.launch({ executablePath, args: CHROMIUM_ARGS });
  t.after(() => browser.close());
  return browser;
}

/** A Firefox with a fresh profile. */
export async function openFirefox(t) {
  const browser = await puppeteer.launch({
    browser: 'firefox', protocol: 'webDriverBiDi', executablePath: '/usr/bin/firefox-esr', headless: true,
    extraPrefsFirefox: { 'media.autoplay.default': 0 },
  });
  t.after(() => browser.close());
  return browser;
}

/** Keeps a screenshot among the artefacts. */
export async function screenshot(page, name) {
  await mkdir(ARTIFACTS, { recursive: true });
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`) });
}

/** What the player says of itself and what its connection counts; `null` for what is not there. */
export function read(page) {
  return page.evaluate(async () => {
    const player = document.querySelector('stream-player');
    if (!player) return null;
    const said = { state: player.state, message: player.message, firstFrameMs: player.firstFrameMs, at: performance.now() };
    if (!player.pc) return { ...said, video: null, audio: null, transport: null };
    const report = await player.pc.getStats();
    const all = [...report.values()];
    const inbound = (kind) => all.find((entry) => entry.type === 'inbound-rtp' && entry.kind === kind) ?? null;
    const pair = all.find((entry) => entry.type === 'candidate-pair' && entry.nominated && entry.state === 'succeeded');
    const codec = (stream) => (stream?.codecId ? report.get(stream.codecId)?.mimeType ?? null : null);
    const [video, audio] = [inbound('video'), inbound('audio')];
    return {
      ...said,
      video: video && { ...video, codec: codec(video) },
      audio: audio && { ...audio, codec: codec(audio) },
      transport: pair ? report.get(pair.localCandidateId)?.protocol ?? null : null,
    };
  });
}

/** Opens a stream's player page and waits until pictures are decoded. */
export async function openPlaying(browser, streamgate, name, query = '') {
  const page = await browser.newPage();
  await page.goto(streamgate.player(name, query));
  await decoding(page, 1, 15_000);
  return page;
}

/** Waits until the current connection has decoded this many frames. */
export function decoding(page, frames, deadlineMs) {
  return poll(`${frames} frames are decoded`, deadlineMs, async () => {
    const now = await read(page);
    return now?.video?.framesDecoded >= frames && now;
  });
}

/**
 * A network namespace with loopback and one more interface, in which the kernel refuses to send UDP. Removed after the
 * test. Needs root.
 */
export function namespaceWithoutUdp(t) {
  const name = `sgnoudp${process.pid}`;
  const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  ip('netns', 'add', name);
  t.after(() => ip('netns', 'del', name));
  ip('-n', name, 'link', 'set', 'lo', 'up');
  // Chromium gathers no candidates where there is nothing but loopback.
  ip('-n', name, 'link', 'add', 'sg0', 'type', 'veth', 'peer', 'name', 'sg1');
  ip('-n', name, 'addr', 'add', '10.97.0.1/24', 'dev', 'sg0');
  ip('-n', name, 'link', 'set', 'sg0', 'up');
  ip('-n', name, 'link', 'set', 'sg1', 'up');
  // The rule for local addresses comes first; behind ours it lets everything but UDP pass.
  ip('-n', name, 'rule', 'add', 'pref', '10', 'lookup', 'local');
  ip('-n', name, 'rule', 'del', 'pref', '0');
  ip('-n', name, 'rule', 'add', 'pref', '5', 'ipproto', 'udp', 'prohibit');
  return name;
}
