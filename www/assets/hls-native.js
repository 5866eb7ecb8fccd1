// The HLS transport of browsers that play HLS by themselves (Safari, iPhones). What a transport is stands in webrtc.js.

import { interrupted, unplayable } from './hls-error.js';
import { CONNECT_DEADLINE_MS, HlsSession } from './hls-session.js';
import { PlayError, Retry } from './play-error.js';

const MIME = 'application/vnd.apple.mpegurl';
/** Browsers choose their own distance to the live edge; beyond this one something went wrong. */
const TOO_FAR_BEHIND_S = 15;
const BEHIND_AFTER_JUMP_S = 4;

export class NativeHlsTransport extends HlsSession {
  mode = 'hls-native';

  #listening = new AbortController();

  async connect(video) {
    this.startedAt = performance.now();
    if (!video.canPlayType(MIME)) {
      throw new PlayError('unsupported', 'This browser does not play HLS by itself', { retry: Retry.SLOW, fallback: true });
    }
    this.video = video;
    const { signal } = this.#listening;
    let timer = 0;
    await new Promise((done, fail) => {
      timer = setTimeout(fail, CONNECT_DEADLINE_MS);
      video.addEventListener('loadeddata', done, { signal });
      video.addEventListener('error', fail, { signal });
      signal.addEventListener('abort', done);
      video.crossOrigin = 'anonymous'; // pictures of another site's server may then be saved, too
      video.src = this.url;
    }).catch(async () => {
      const { code = 0, message = '' } = video.error ?? {};
      const said = await this.check();
      if (said) throw said;
      if ([MediaError.MEDIA_ERR_DECODE, MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED].includes(code)) {
        throw unplayable('this browser cannot decode the stream');
      }
      throw new PlayError('connection', 'HLS does not start', { detail: message, fallback: true });
    }).finally(() => clearTimeout(timer));
    if (this.closed) return;
    this.hasVideo = video.videoWidth > 0;
    video.addEventListener('error', () => this.#broken(), { signal });
    this.setConnection('connected');
  }

  ended() {
    this.#listening.abort();
  }

  async stats() {
    const video = this.video;
    const { seekable } = video;
    const edge = seekable.length ? seekable.end(seekable.length - 1) : NaN;
    const behind = edge - video.currentTime;
    if (behind > TOO_FAR_BEHIND_S && !video.seeking) video.currentTime = edge - BEHIND_AFTER_JUMP_S;
    return this.reader.read(video, { transport: 'by the browser', bytes: null, latencyMs: Number.isFinite(behind) ? behind * 1000 : null });
  }

  async #broken() {
    const { code, message } = this.video.error ?? {};
    const said = await this.check();
    const network = code === MediaError.MEDIA_ERR_NETWORK;
    const error = said ?? (network ? interrupted() : new PlayError('server', 'The browser gave up playing', { detail: message ?? '' }));
    this.fail(error);
  }
}
