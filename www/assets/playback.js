// Keeps one <video> playing: opens a transport, watches it, opens the next one when it breaks. Knows no buttons and no styles.

import { PlayError, Retry } from './play-error.js';

const TICK_MS = 1_000;
const STALLED_MS = 5_000;
const DEAD_MS = 30_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 15_000;
const SLOW_RETRY_MS = 30_000;
/** Playing for so long counts as recovered: the next failure starts with short pauses again. */
const STEADY_MS = 10_000;

/**
 * Events: `change` (state, error or message changed), `stats` (a new reading), `freeze` (sent just before the picture goes
 * away: keep a copy), `frame` (the first picture of a session is on screen), `blocked` (the browser wants a click first, or
 * allows play only without sound).
 */
export class Playback extends EventTarget {
  /** 'connecting' | 'playing' | 'waiting' | 'paused' | 'error' */
  state = 'paused';
  /** The failure that is being dealt with, until pictures come again. */
  error = null;
  /** performance.now() of the next try, 0 when none is planned. */
  retryAt = 0;
  /** From the request to the first picture on screen, in ms; null until then. */
  firstFrameMs = null;
  stats = null;

  #video;
  #makeTransport;
  #transport = null;
  #wanted = false;
  #failures = 0;
  #retryTimer = 0;
  #ticker = 0;
  #note = '';
  #playingSince = 0;
  #watch = null;

  /** @param {HTMLVideoElement} video @param {() => EventTarget} makeTransport see webrtc.js for what it must be */
  constructor(video, makeTransport) {
    super();
    this.#video = video;
    this.#makeTransport = makeTransport;
    video.addEventListener('pause', () => this.#pausedByBrowser());
  }

  get wanted() {
    return this.#wanted;
  }

  get transport() {
    return this.#transport;
  }

  get message() {
    return this.error?.message ?? this.#note;
  }

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#failures = 0;
    this.error = null;
    addEventListener('online', this.#wake);
    document.addEventListener('visibilitychange', this.#wake);
    this.#open();
  }

  stop() {
    if (!this.#wanted) return;
    this.#wanted = false;
    removeEventListener('online', this.#wake);
    document.removeEventListener('visibilitychange', this.#wake);
    this.#drop();
    this.error = null;
    this.#setState('paused');
  }

  /** Tries now instead of when the pause is over. */
  retryNow() {
    if (!this.#wanted || this.#transport) return;
    this.#failures = 0;
    this.#open();
  }

  /** The tab is seen again, or the network is back. */
  #wake = () => {
    if (document.hidden) return;
    this.retryNow();
    if (this.#transport && this.#video.srcObject && this.#video.paused) this.#play();
    if (this.#transport?.connection === 'disconnected') this.#open();
  };

  async #open() {
    this.#drop(); // never two sessions at once
    const transport = this.#makeTransport();
    this.#transport = transport;
    this.firstFrameMs = null;
    this.#watch = null;
    this.#setState('connecting');
    transport.addEventListener('connection', () => this.#connectionChanged(transport));
    transport.addEventListener('failed', (event) => this.#fail(transport, event.detail));
    try {
      await transport.connect(this.#video);
    } catch (error) {
      const known = error instanceof PlayError ? error : new PlayError('unexpected', 'The player failed', { detail: String(error) });
      return this.#fail(transport, known);
    }
    if (transport !== this.#transport) return;
    this.#onNextFrame(transport, () => this.#firstFrame(transport));
    this.#ticker = setInterval(() => this.#tick(transport), TICK_MS);
    this.#play();
  }

  /** Ends the session, if there is one, and keeps its last picture. */
  #drop() {
    clearTimeout(this.#retryTimer);
    clearInterval(this.#ticker);
    this.retryAt = 0;
    this.stats = null;
    const transport = this.#transport;
    this.#transport = null;
    if (!transport) return;
    this.dispatchEvent(new Event('freeze'));
    transport.close();
    this.#video.srcObject = null;
  }

  #fail(transport, error) {
    if (transport !== this.#transport) return;
    const steady = this.#playingSince > 0 && performance.now() - this.#playingSince > STEADY_MS;
    if (steady) this.#failures = 0;
    this.#playingSince = 0;
    // A connection that worked and broke: the next one most likely works, so do not show an error yet.
    if (error.kind === 'connection' && steady) return this.#open();
    this.#drop();
    this.#failures += 1;
    this.error = error;
    if (error.retry !== Retry.NEVER) {
      const delay = this.#retryDelay(error);
      this.retryAt = performance.now() + delay;
      this.#retryTimer = setTimeout(() => this.#open(), delay);
    }
    this.#setState('error');
    this.dispatchEvent(new CustomEvent('failure', { detail: error }));
  }

  #retryDelay(error) {
    if (error.retry === Retry.SLOW) return SLOW_RETRY_MS;
    const pause = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.#failures - 1));
    return Math.max(error.retryAfterMs, pause * (0.75 + Math.random() * 0.5));
  }

  #connectionChanged(transport) {
    if (transport !== this.#transport) return;
    const now = performance.now();
    if (transport.connection === 'connected') this.#watch ??= { bytes: 0, bytesAt: now, frames: 0, framesAt: now, tickAt: now };
    if (transport.connection === 'disconnected' && this.state === 'playing') {
      this.#wait(transport, 'The connection is interrupted…');
    }
  }

  #firstFrame(transport) {
    if (transport !== this.#transport || this.firstFrameMs !== null) return;
    this.firstFrameMs = performance.now() - transport.startedAt;
    this.error = null;
    this.#playingSince = performance.now();
    this.dispatchEvent(new Event('frame'));
    this.#setState('playing');
  }

  #wait(transport, note) {
    if (this.state === 'waiting') return;
    this.error = null;
    this.#setState('waiting', note);
    this.#onNextFrame(transport, () => this.#resumed(transport));
  }

  #resumed(transport) {
    if (transport !== this.#transport || this.state !== 'waiting') return;
    if (this.firstFrameMs === null) this.#firstFrame(transport);
    else this.#setState('playing');
  }

  async #tick(transport) {
    const stats = await transport.stats().catch(() => null);
    if (!stats || transport !== this.#transport) return;
    this.stats = stats;
    this.dispatchEvent(new Event('stats'));
    const watch = this.#watch;
    if (!watch) return;

    const now = performance.now();
    const slept = now - watch.tickAt > STALLED_MS;
    watch.tickAt = now;
    const frames = transport.hasVideo ? stats.framesDecoded : stats.audioBytesReceived;
    if (slept || stats.bytesReceived !== watch.bytes) watch.bytesAt = now;
    const moving = frames !== watch.frames;
    if (slept || moving) watch.framesAt = now;
    watch.bytes = stats.bytesReceived;
    watch.frames = frames;

    // Pictures are not presented in a hidden tab, sound alone has none: there the counters tell.
    if (moving && (document.hidden || !transport.hasVideo)) {
      this.#firstFrame(transport);
      this.#resumed(transport);
    }
    if (transport.connection !== 'connected') return;
    // A silent camera is no reason to leave: the server goes on by itself when the camera is back.
    if (now - watch.bytesAt > DEAD_MS) this.#open();
    else if (now - watch.framesAt > STALLED_MS) this.#wait(transport, 'Waiting for the camera…');
  }

  #onNextFrame(transport, then) {
    const video = this.#video;
    if (!transport.hasVideo) return; // #tick sees the sound
    if (video.requestVideoFrameCallback) return void video.requestVideoFrameCallback(then);
    const seen = () => {
      if (transport !== this.#transport) video.removeEventListener('timeupdate', seen);
      else if (video.videoWidth > 0) {
        video.removeEventListener('timeupdate', seen);
        then();
      }
    };
    video.addEventListener('timeupdate', seen);
  }

  async #play() {
    const transport = this.#transport;
    try {
      await this.#video.play();
    } catch (error) {
      if (error?.name !== 'NotAllowedError' || transport !== this.#transport) return;
      if (this.#video.muted) return this.#blocked('play');
      this.#video.muted = true;
      this.dispatchEvent(new CustomEvent('blocked', { detail: 'sound' }));
      this.#video.play().catch(() => transport === this.#transport && this.#blocked('play'));
    }
  }

  #blocked(what) {
    this.stop();
    this.dispatchEvent(new CustomEvent('blocked', { detail: what }));
  }

  /** Media keys and closing a picture-in-picture window pause the element itself. */
  #pausedByBrowser() {
    const ours = this.#transport?.connection !== 'connected' || !this.#video.srcObject || document.hidden;
    if (!ours && this.state === 'playing') this.stop();
  }

  #setState(state, note = '') {
    this.state = state;
    this.#note = note;
    this.dispatchEvent(new Event('change'));
  }
}
