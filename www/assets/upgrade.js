// While a second-best transport plays: tries the preferred one beside it, unseen, and hands it over once it has shown pictures.

import { PlayError } from './play-error.js';

const CHECK_MS = 5_000;
const FIRST_TRY_MS = 15_000;
const LAST_TRY_MS = 300_000;
/** Pictures that a trial must decode before it counts. */
const FRAMES = 3;
const TRIAL_DEADLINE_MS = 12_000;
const POLL_MS = 200;

export class Upgrade {
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
   * @param {() => EventTarget} make the preferred transport
   * @param {() => Promise<string|null>} streamState a text that changes whenever a refused stream might now be taken; null: not live
   * @param {(transport: EventTarget) => void} onReady it shows pictures and is the receiver's from now on
   * @param {(error: PlayError) => void} onFailed it still does not work
   */
  constructor({ make, streamState, onReady, onFailed }) {
    this.#make = make;
    this.#streamState = streamState;
    this.#onReady = onReady;
    this.#onFailed = onFailed;
  }

  /** @param {PlayError} error why the preferred transport was left */
  start(error) {
    this.stop();
    if (error.kind === 'unsupported') return; // the browser will not learn it
    const run = ++this.#running;
    this.#plan();
    this.#watch(run, error);
  }

  stop() {
    this.#running += 1;
    clearTimeout(this.#timer);
    this.#trial?.close();
    this.#trial = null;
    this.#seen = null;
  }

  /** The preferred transport has played long enough: later failures start with short pauses again. */
  forgive() {
    this.#tries = 0;
  }

  #plan() {
    this.#nextTry = performance.now() + Math.min(LAST_TRY_MS, FIRST_TRY_MS * 2 ** this.#tries);
  }

  async #watch(run, error) {
    this.#seen = await this.#streamState();
    while (run === this.#running) {
      await new Promise((done) => { this.#timer = setTimeout(done, CHECK_MS); });
      if (run !== this.#running || document.hidden) continue;
      const state = await this.#streamState();
      if (run !== this.#running) return;
      const changed = state !== null && this.#seen !== null && state !== this.#seen;
      this.#seen = state ?? this.#seen;
      // The same stream would be refused with the same words.
      const due = error.kind !== 'codecs' && performance.now() >= this.#nextTry;
      if (!changed && !due) continue;
      this.#tries += 1;
      const failure = await this.#try(run);
      if (run !== this.#running || !failure) return;
      this.#plan();
      // What the camera or the server has to say is passing; what this way lacks is the reason from now on.
      if (failure.fallback) {
        error = failure;
        this.#onFailed(failure);
      }
    }
  }

  /** @returns {Promise<PlayError|null>} null when it was handed over */
  async #try(run) {
    const transport = this.#make();
    const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
    this.#trial = transport;
    try {
      await this.#untilItPlays(transport, video);
      if (run !== this.#running) throw new PlayError('connection', 'No longer wanted');
      this.#trial = null;
      this.#onReady(transport);
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
    throw noPicture();
  }
}

export function noPicture() {
  return new PlayError('picture', 'WebRTC shows no picture', {
    detail: 'connected, but no picture could be decoded',
    hint: 'A firewall may hold the media back.',
    fallback: true,
  });
}
