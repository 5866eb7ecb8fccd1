// The HLS transport by hls.js: one LL-HLS session into one <video>. What a transport is stands in webrtc.js.
//
// hls.js is put beside this file at build time (`make`), and loaded when it is needed. A build without it still has hls-native.js.

import { interrupted, unplayable } from './hls-error.js';
import { LiveEdge } from './hls-live-edge.js';
import { CONNECT_DEADLINE_MS, HlsSession } from './hls-session.js';
import { codecsOf } from './hls-stats.js';
import { PlayError, Retry } from './play-error.js';

const LIBRARY = new URL('./vendor/hls.mjs', import.meta.url).href;
const FIRST_RELOAD_MS = 500;
const LAST_RELOAD_MS = 4_000;
/** An interruption may last so long before the session is given up for a new one. */
const PATIENCE_MS = 40_000;
/** Decoder trouble: so many mends, in so much time, then a new session. */
const MENDS = 3;
const MENDS_WITHIN_MS = 20_000;

const policy = (maxNumRetry, maxTimeToFirstByteMs) => ({
  default: {
    maxTimeToFirstByteMs,
    maxLoadTimeMs: 20_000,
    timeoutRetry: { maxNumRetry, retryDelayMs: 0, maxRetryDelayMs: 0 },
    errorRetry: { maxNumRetry, retryDelayMs: 250, maxRetryDelayMs: 2_000, backoff: 'exponential' },
  },
});

const CONFIG = {
  lowLatencyMode: true,
  enableWorker: false, // fragmented MP4 goes to the decoder as it is: nothing to do for a worker
  backBufferLength: 8,
  maxBufferLength: 8,
  maxMaxBufferLength: 12,
  liveDurationInfinity: true,
  liveSyncOnStallIncrease: 0.15,
  maxLiveSyncPlaybackRate: 1, // LiveEdge does that
  maxBufferHole: 0.3,
  testBandwidth: false,
  manifestLoadPolicy: policy(0, CONNECT_DEADLINE_MS),
  playlistLoadPolicy: policy(4, 10_000),
  fragLoadPolicy: policy(3, 10_000),
};

let library = null;

/** hls.js' class; rejects with a PlayError that says what is missing. */
async function loadLibrary() {
  try {
    library ??= (await import(LIBRARY)).default;
    return library;
  } catch (error) {
    const answer = await fetch(LIBRARY, { method: 'HEAD' }).catch(() => null);
    if (answer?.status !== 404) {
      throw new PlayError('network', 'The HLS player could not be loaded', { detail: String(error?.message ?? error), fallback: true });
    }
    throw new PlayError('unsupported', 'This browser needs hls.js, and this server was built without it', {
      hint: 'Build the server with “make”, or use Safari.',
      retry: Retry.SLOW,
      fallback: true,
    });
  }
}

export class HlsTransport extends HlsSession {
  mode = 'hls';

  #hls = null;
  #edge = null;
  #bytes = 0;
  #codecs = [];
  /** Codecs of the video and the sound that are being played; another connection to the camera may change them. */
  #playing = {};
  #timer = 0;
  #interruptedAt = 0;
  #reloads = 0;
  #mends = [];

  async connect(video) {
    this.startedAt = performance.now();
    if (!('MediaSource' in self || 'ManagedMediaSource' in self)) throw this.#unsupported();
    const Hls = await loadLibrary();
    if (this.closed) return;
    if (!Hls.isSupported()) throw this.#unsupported();
    const hls = new Hls(CONFIG);
    this.#hls = hls;
    this.video = video;
    await new Promise((done, fail) => {
      this.#timer = setTimeout(() => fail(null), CONNECT_DEADLINE_MS);
      const { BUFFER_CODECS, ERROR, FRAG_BUFFERED, FRAG_LOADED, MANIFEST_LOADED, MANIFEST_PARSED } = Hls.Events;
      hls.on(MANIFEST_LOADED, (_, { levels }) => { this.#codecs = levels.map((level) => level.attrs?.CODECS).filter(Boolean); });
      hls.on(MANIFEST_PARSED, (_, { levels }) => { this.hasVideo = levels.some((level) => level.videoCodec || level.width); });
      hls.on(BUFFER_CODECS, (_, tracks) => { this.#playing = { ...this.#playing, ...codecsOf(tracks) }; });
      hls.on(FRAG_LOADED, (_, { payload }) => { this.#bytes += payload?.byteLength ?? 0; });
      hls.on(FRAG_BUFFERED, () => {
        done();
        this.#mediaArrived();
      });
      hls.on(ERROR, (_, data) => {
        if (!data.fatal) return;
        if (this.connection === 'connecting') fail(data);
        else this.#recover(Hls, data);
      });
      hls.attachMedia(video);
      hls.loadSource(this.url);
    }).catch(async (data) => {
      hls.stopLoad();
      throw await this.#explain(Hls, data);
    }).finally(() => clearTimeout(this.#timer));
    if (!this.closed) this.#edge = new LiveEdge(hls, video);
  }

  ended() {
    clearTimeout(this.#timer);
    this.#edge?.stop();
    this.#hls?.destroy();
  }

  async stats() {
    const hls = this.#hls;
    const details = hls?.latestLevelDetails;
    // hls.js' own estimate; its `latency` stands still while the picture does.
    const latency = details?.live ? details.edge + details.age - this.video.currentTime : NaN;
    return this.reader.read(this.video, {
      transport: details && !details.partTarget ? 'whole segments' : 'low latency',
      bytes: this.#bytes,
      latencyMs: Number.isFinite(latency) ? Math.max(0, latency * 1000) : null,
      ...this.#playing,
    });
  }

  #mediaArrived() {
    this.#interruptedAt = 0;
    this.#reloads = 0;
    this.setConnection('connected');
  }

  /** Goes on in the same session: the picture stays until it is over. */
  #recover(Hls, data) {
    if (this.closed) return;
    const now = performance.now();
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR) {
      this.#mends = [...this.#mends.filter((at) => now - at < MENDS_WITHIN_MS), now];
      if (this.#mends.length > MENDS) return this.fail(interrupted());
      this.setConnection('disconnected');
      this.#hls.recoverMediaError();
      this.video.play().catch(() => {}); // attaching anew has paused it
      return;
    }
    if (data.type !== Hls.ErrorTypes.NETWORK_ERROR) return this.fail(interrupted());
    this.#interruptedAt ||= now;
    this.setConnection('disconnected');
    const pause = Math.min(LAST_RELOAD_MS, FIRST_RELOAD_MS * 2 ** this.#reloads);
    this.#reloads += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reload(now - this.#interruptedAt > PATIENCE_MS), pause);
  }

  async #reload(tired) {
    // A session that the server does not know any more does not come back by asking again.
    const error = await this.check();
    if (this.closed || this.connection === 'connected') return;
    if (tired || error?.kind === 'unknown') return this.fail(error ?? interrupted());
    this.#hls.startLoad(-1);
  }

  async #explain(Hls, data) {
    const { MANIFEST_INCOMPATIBLE_CODECS_ERROR, BUFFER_ADD_CODEC_ERROR, BUFFER_INCOMPATIBLE_CODECS_ERROR } = Hls.ErrorDetails;
    const codecs = [MANIFEST_INCOMPATIBLE_CODECS_ERROR, BUFFER_ADD_CODEC_ERROR, BUFFER_INCOMPATIBLE_CODECS_ERROR];
    const named = this.#codecs.length > 0 && codecs.includes(data?.details);
    if (named) return unplayable(`this browser cannot decode ${this.#codecs.join(', ')}`);
    if (data?.type === Hls.ErrorTypes.MEDIA_ERROR) return unplayable(data.error?.message ?? data.details);
    const said = await this.check();
    // It was refused and would not be now: the camera has come meanwhile.
    if (!said && data?.response?.code >= 400) return interrupted();
    return said ?? new PlayError('connection', 'HLS does not start', { detail: data?.details ?? 'no media in time', fallback: true });
  }

  #unsupported() {
    return new PlayError('unsupported', 'This browser has no Media Source Extensions', { retry: Retry.NEVER, fallback: true });
  }
}
