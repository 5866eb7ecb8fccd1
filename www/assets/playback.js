// Keeps one <video> playing: opens a transport, watches it, opens the next one when it breaks. Knows no buttons and no styles.

import { Fallback } from './fallback.js';
import { PlayError, Retry } from './play-error.js';
import { Upgrade, noPicture } from './upgrade.js';

const TICK_MS = 1_000;
const STALLED_MS = 5_000;
const DEAD_MS = 30_000;
/** Connected for so long without a picture while the camera is live: another transport's turn. */
const FIRST_PICTURE_MS = 4_000;
/** Pictures stopped while video still arrives. */
const UNDECODABLE_MS = 10_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 15_000;
const SLOW_RETRY_MS = 30_000;
/** Playing for so long counts as recovered: the next failure starts with short pauses again. */
const STEADY_MS = 10_000;
/** A session that can pause is kept for so long. */
const PARKED_MS = 120_000;

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
  #modes;
  #makeTransport;
  #streamState;
  #fallback = null;
  #upgrade;
  #transport = null;
  #wanted = false;
  #failures = 0;
  #retryTimer = 0;
  #ticker = 0;
  #note = '';
  #playingSince = 0;
  #parkTimer = 0;
  #watch = null;

  /**
   * @param {HTMLVideoElement} video
   * @param {() => string[]} modes transports in order of preference
   * @param {(mode: string, more: {impatient: boolean}) => EventTarget} makeTransport see webrtc.js for what it must be
   * @param {() => Promise<string|null>} streamState see upgrade.js; null: the camera is not live
   */
  constructor(video, { modes, makeTransport, streamState }) {
    super();
    this.#video = video;
    this.#modes = modes;
    this.#makeTransport = makeTransport;
    this.#streamState = streamState;
    this.#upgrade = new Upgrade({
      better: () => this.#fallback.better,
      make: (mode) => makeTransport(mode, { impatient: true }),
      streamState,
      onReady: (mode, transport) => {
        this.#fallback.restored(mode);
        if (transport) this.#adopt(transport);
        else this.#open();
      },
      onFailed: (mode, error) => {
        this.#fallback.stillFails(mode, error);
        this.dispatchEvent(new Event('change'));
      },
    });
    video.addEventListener('pause', () => this.#pausedByBrowser());
  }

  get wanted() {
    return this.#wanted;
  }

  get transport() {
    return this.#transport;
  }

  /** The transport that plays or is being tried, as in the `mode` attribute; null while nothing is wanted. */
  get mode() {
    return this.#wanted ? this.#transport?.mode ?? this.#fallback.mode : null;
  }

  /** Why it is not the preferred one, '' when it is. */
  get reason() {
    return this.#wanted ? this.#fallback.reason : '';
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
    const parked = this.#transport;
    if (parked) return this.#unpark(parked);
    this.#fallback = new Fallback(this.#modes());
    this.#open();
  }

  /** Like stop(), but a session that can pause is kept for a while, so that it goes on at once. */
  pause() {
    const transport = this.#transport;
    const parks = transport?.pause && transport.connection === 'connected' && this.firstFrameMs !== null;
    this.stop(Boolean(parks));
  }

  stop(park = false) {
    if (!this.#wanted) {
      if (!park) this.#drop(); // what pause() has kept
      return;
    }
    this.#wanted = false;
    removeEventListener('online', this.#wake);
    document.removeEventListener('visibilitychange', this.#wake);
    if (park) this.#park();
    else this.#drop();
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
    if (this.#transport && this.#hasMedia && this.#video.paused) this.#play();
    if (this.#transport?.connection === 'disconnected') this.#open();
  };

  get #hasMedia() {
    return Boolean(this.#video.srcObject || this.#video.getAttribute('src'));
  }

  #park() {
    clearInterval(this.#ticker);
    this.#upgrade.stop();
    this.stats = null;
    this.#transport.pause();
    this.#video.pause();
    this.#parkTimer = setTimeout(() => this.#drop(), PARKED_MS);
  }

  #unpark(transport) {
    clearTimeout(this.#parkTimer);
    this.firstFrameMs = null;
    this.#watch = null;
    transport.startedAt = performance.now();
    this.#setState('connecting');
    transport.resume();
    this.#connectionChanged(transport);
    this.#begin(transport);
  }

  async #open() {
    this.#drop(); // never two sessions at once
    const transport = this.#makeTransport(this.#fallback.mode, { impatient: this.#fallback.hasNext });
    this.#take(transport);
    this.#setState('connecting');
    try {
      await transport.connect(this.#video);
    } catch (error) {
      const known = error instanceof PlayError ? error : new PlayError('unexpected', 'The player failed', { detail: String(error) });
      return this.#fail(transport, known);
    }
    if (transport === this.#transport) this.#begin(transport);
  }

  /** Goes on with a session that already has pictures. */
  #adopt(transport) {
    this.#drop();
    this.#take(transport);
    transport.attach(this.#video);
    this.#connectionChanged(transport);
    this.#begin(transport);
    this.dispatchEvent(new Event('change'));
  }

  #take(transport) {
    this.#transport = transport;
    this.firstFrameMs = null;
    this.#watch = null;
    transport.addEventListener('connection', () => this.#connectionChanged(transport));
    transport.addEventListener('failed', (event) => this.#fail(transport, event.detail));
  }

  #begin(transport) {
    this.#onNextFrame(transport, () => this.#firstFrame(transport));
    this.#ticker = setInterval(() => this.#tick(transport), TICK_MS);
    this.#play();
  }

  /** Ends the session, if there is one, and keeps its last picture. */
  #drop() {
    clearTimeout(this.#parkTimer);
    clearTimeout(this.#retryTimer);
    clearInterval(this.#ticker);
    this.#upgrade.stop();
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
    if (!this.#wanted) return this.#drop(); // it was parked
    const steady = this.#playingSince > 0 && performance.now() - this.#playingSince > STEADY_MS;
    if (steady) this.#failures = 0;
    if (steady && !this.#fallback.reason) this.#upgrade.forgive();
    this.#playingSince = 0;
    if (this.#fallback.next(error)) return this.#open();
    const lost = error.kind === 'connection' && !error.fallback;
    // A connection that worked and broke: the next one most likely works, so do not show an error yet.
    if (lost && this.#failures === 0) {
      this.#failures = steady ? 0 : 1;
      return this.#open();
    }
    this.#drop();
    this.#failures += 1;
    if (error.fallback) error = this.#fallback.exhausted(error);
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
    if (transport.connection === 'connected') {
      this.#watch ??= { bytes: 0, bytesAt: now, videoBytes: 0, videoBytesAt: 0, frames: 0, framesAt: now, tickAt: now, askedAt: now };
    }
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
    this.#upgrade.start();
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
    const videoBytes = stats.bytesReceived - stats.audioBytesReceived;
    if (videoBytes !== watch.videoBytes) watch.videoBytesAt = now;
    watch.videoBytes = videoBytes;

    // Pictures are not presented in a hidden tab, sound alone has none: there the counters tell.
    if (moving && (document.hidden || !transport.hasVideo)) {
      this.#firstFrame(transport);
      this.#resumed(transport);
    }
    if (transport.connection !== 'connected') return;
    // A silent camera is no reason to leave: the server goes on by itself when the camera is back.
    if (await this.#showsNothing(transport, watch, now)) return this.#fail(transport, noPicture(transport.mode));
    if (transport !== this.#transport) return;
    if (now - watch.bytesAt > DEAD_MS) this.#askWhy(transport, watch);
    else if (now - watch.framesAt > (transport.quietMs ?? STALLED_MS)) this.#wait(transport, 'Waiting for the camera…');
  }

  /** Nothing has come for long. A session that the server still knows goes on when the camera does; any other is begun anew. */
  async #askWhy(transport, watch) {
    watch.bytesAt = performance.now();
    const error = await transport.check?.();
    const waits = transport.check && !error && (await this.#streamState()) === null;
    if (transport !== this.#transport || waits) return;
    if (error) this.#fail(transport, error);
    else this.#open();
  }

  /** The camera sends and this transport has no picture of it. */
  async #showsNothing(transport, watch, now) {
    if (transport.mode !== 'webrtc' || !transport.hasVideo || document.hidden || !this.#fallback.hasNext) return false;
    const since = now - watch.framesAt;
    const arriving = now - watch.videoBytesAt < STALLED_MS;
    if (this.firstFrameMs !== null) return arriving && since > UNDECODABLE_MS;
    if (since < FIRST_PICTURE_MS || arriving) return since >= FIRST_PICTURE_MS;
    if (now - watch.askedAt < FIRST_PICTURE_MS) return false;
    watch.askedAt = now;
    return (await this.#streamState()) !== null;
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
    const ours = this.#transport?.connection !== 'connected' || !this.#hasMedia || this.#video.error || document.hidden;
    if (!ours && this.state === 'playing') this.stop();
  }

  #setState(state, note = '') {
    this.state = state;
    this.#note = note;
    this.dispatchEvent(new Event('change'));
  }
}
