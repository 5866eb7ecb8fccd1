// While a second-best transport plays: tries the better ones beside it, unseen, and tells of the first that has shown pictures.

import { LABELS } from './fallback.js';
import { PlayError } from './play-error.js';

const CHECK_MS = 5_000;
const FIRST_TRY_MS = 15_000;
const LAST_TRY_MS = 300_000;
/** Pictures that a trial must decode before it counts. */
const FRAMES = 3;
const TRIAL_DEADLINE_MS = 12_000;
const POLL_MS = 200;

export class Upgrade {
  #better;
  #make;
  #streamState;
  #onReady;
  #onFailed;
  #timer = 0;
  #running = 0;
  #trial = null;
  #tries = 0;
  #nextTry = 0;
  #seen = null;

  /**
   * @param {() => {mode: string, error: PlayError}[]} better transports that are preferred to the one that plays, the best first, and
   *   why each was left
   * @param {(mode: string) => EventTarget} make a transport
   * @param {() => Promise<string|null>} streamState a text that changes whenever a refused stream might now be taken; null: not live
   * @param {(mode: string, transport: EventTarget|null) => void} onReady it shows pictures and is the receiver's from now on; null: it
   *   works, and can't be shown elsewhere than where it began
   * @param {(mode: string, error: PlayError) => void} onFailed it still does not work
   */
  constructor({ better, make, streamState, onReady, onFailed }) {
    this.#better = better;
    this.#make = make;
    this.#streamState = streamState;
    this.#onReady = onReady;
    this.#onFailed = onFailed;
  }

  start() {
    this.stop();
    if (!this.#learners().length) return;
    const run = ++this.#running;
    this.#plan();
    this.#watch(run);
  }

  stop() {
    this.#running += 1;
    clearTimeout(this.#timer);
    this.#trial?.close();
    this.#trial = null;
    this.#seen = null;
  }

  /** The best transport has played long enough: later failures start with short pauses again. */
  forgive() {
    this.#tries = 0;
  }

  #plan() {
    this.#nextTry = performance.now() + Math.min(LAST_TRY_MS, FIRST_TRY_MS * 2 ** this.#tries);
  }

  /** What a browser does not have it will not learn. */
  #learners() {
    return this.#better().filter(({ error }) => error && error.kind !== 'unsupported');
  }

  async #watch(run) {
    this.#seen = await this.#streamState();
    while (run === this.#running) {
      await new Promise((done) => { this.#timer = setTimeout(done, CHECK_MS); });
      if (run !== this.#running || document.hidden) continue;
      const state = await this.#streamState();
      if (run !== this.#running) return;
      const changed = state !== null && this.#seen !== null && state !== this.#seen;
      this.#seen = state ?? this.#seen;
      const due = performance.now() >= this.#nextTry;
      // The same stream would be refused with the same words.
      const tries = this.#learners().filter(({ error }) => changed || (due && error.kind !== 'codecs'));
      if (!tries.length) continue;
      this.#tries += 1;
      for (const { mode } of tries) {
        const failure = await this.#try(run, mode);
        if (run !== this.#running || !failure) return;
        // What the camera or the server has to say is passing; what this way lacks is the reason from now on.
        if (failure.fallback) this.#onFailed(mode, failure);
      }
      this.#plan();
    }
  }

  /** @returns {Promise<PlayError|null>} null when it was handed over */
  async #try(run, mode) {
    const transport = this.#make(mode);
    const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
    this.#trial = transport;
    try {
      await this.#untilItPlays(transport, video);
      if (run !== this.#running) throw new PlayError('connection', 'No longer wanted');
      this.#trial = null;
      if (!transport.attach) transport.close();
      this.#onReady(mode, transport.attach ? transport : null);
      return null;
    } catch (error) {
      transport.close();
      return error instanceof PlayError ? error : new PlayError('unexpected', 'The player failed', { detail: String(error), fallback: true });
    } finally {
      video.srcObject = null;
      if (this.#trial === transport) this.#trial = null;
    }
  }

  async #untilItPlays(transport, video) {
    const failed = new Promise((_, fail) => transport.addEventListener('failed', (event) => fail(event.detail)));
    failed.catch(() => {}); // it may also come later
    await Promise.race([transport.connect(video), failed]);
    video.play().catch(() => {});
    const end = performance.now() + TRIAL_DEADLINE_MS;
    while (performance.now() < end && transport.connection !== 'closed') {
      const stats = await Promise.race([transport.stats(), failed]);
      if (transport.hasVideo ? stats.framesDecoded >= FRAMES : stats.audioBytesReceived > 0) return;
      await Promise.race([new Promise((done) => setTimeout(done, POLL_MS)), failed]);
    }
    throw noPicture(transport.mode);
  }
}

export function noPicture(mode) {
  return new PlayError('picture', `${LABELS[mode]} shows no picture`, {
    detail: 'connected, but no picture could be decoded',
    hint: 'A firewall may hold the media back.',
    fallback: true,
  });
}
