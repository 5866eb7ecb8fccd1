// The HLS transport of browsers that play HLS by themselves (Safari, iPhones). What a transport is stands in webrtc.js.

import { explainPlaylist, interrupted, playlistUrl, unplayable } from './hls-error.js';
import { HlsStatsReader } from './hls-stats.js';
import { PlayError, Retry } from './play-error.js';

const MIME = 'application/vnd.apple.mpegurl';
const CONNECT_DEADLINE_MS = 25_000;
/** Browsers choose their own distance to the live edge; beyond this one something went wrong. */
const TOO_FAR_BEHIND_S = 15;
const BEHIND_AFTER_JUMP_S = 4;

export class NativeHlsTransport extends EventTarget {
  mode = 'hls-native';
  pc = null;
  connection = 'connecting';
  startedAt = 0;
  hasVideo = true;

  #url;
  #stream;
  #video = null;
  #closed = false;
  #listening = new AbortController();
  #stats = new HlsStatsReader();

  /** @param {{base: string, stream: string}} options base ends with a slash */
  constructor({ base, stream }) {
    super();
    this.#url = playlistUrl(base, stream);
    this.#stream = stream;
  }

  async connect(video) {
    this.startedAt = performance.now();
    if (!video.canPlayType(MIME)) {
      throw new PlayError('unsupported', 'This browser does not play HLS by itself', { retry: Retry.SLOW, fallback: true });
    }
    this.#video = video;
    const { signal } = this.#listening;
    let timer = 0;
    await new Promise((done, fail) => {
      timer = setTimeout(fail, CONNECT_DEADLINE_MS);
      video.addEventListener('loadeddata', done, { signal });
      video.addEventListener('error', fail, { signal });
      signal.addEventListener('abort', done);
      video.crossOrigin = 'anonymous'; // pictures of another site's server may then be saved, too
      video.src = this.#url;
    }).catch(async () => {
      const { code = 0, message = '' } = video.error ?? {};
      const said = await explainPlaylist(this.#url, this.#stream);
      if (said) throw said;
      if ([MediaError.MEDIA_ERR_DECODE, MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED].includes(code)) {
        throw unplayable('this browser cannot decode the stream');
      }
      throw new PlayError('connection', 'HLS does not start', { detail: message, fallback: true });
    }).finally(() => clearTimeout(timer));
    if (this.#closed) return;
    this.hasVideo = video.videoWidth > 0;
    video.addEventListener('error', () => this.#broken(), { signal });
    this.connection = 'connected';
    this.dispatchEvent(new Event('connection'));
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.connection = 'closed';
    this.#listening.abort();
    this.#video?.removeAttribute('src');
    this.#video?.load();
  }

  check() {
    return explainPlaylist(this.#url, this.#stream);
  }

  async stats() {
    const video = this.#video;
    const { seekable } = video;
    const edge = seekable.length ? seekable.end(seekable.length - 1) : NaN;
    const behind = edge - video.currentTime;
    if (behind > TOO_FAR_BEHIND_S && !video.seeking) video.currentTime = edge - BEHIND_AFTER_JUMP_S;
    return this.#stats.read(video, { transport: 'by the browser', bytes: null, latencyMs: Number.isFinite(behind) ? behind * 1000 : null });
  }

  async #broken() {
    const { code, message } = this.#video.error ?? {};
    const said = await explainPlaylist(this.#url, this.#stream);
    const network = code === MediaError.MEDIA_ERR_NETWORK;
    const error = said ?? (network ? interrupted() : new PlayError('server', 'The browser gave up playing', { detail: message ?? '' }));
    if (!this.#closed) this.dispatchEvent(new CustomEvent('failed', { detail: error }));
  }
}
