// Which transport is to play, and why not the one before it. No timers, no network.

import { PlayError, Retry } from './play-error.js';

/** The words of the `mode` attribute, in the order that is best for most. */
const KNOWN = ['webrtc', 'mse', 'hls', 'hls-native', 'mjpeg', 'picture'];
export const LABELS = {
  webrtc: 'WebRTC', mse: 'MSE', hls: 'HLS', 'hls-native': 'HLS by the browser', mjpeg: 'MJPEG', picture: 'Pictures',
};

/** `mode` attribute → transports in order. `hls` means hls.js, or the browser itself where that is not to be had. */
export function parseModes(attribute) {
  const words = (attribute ?? '').toLowerCase().split(',').map((word) => word.trim()).filter((word) => KNOWN.includes(word));
  const modes = words.flatMap((word) => (word === 'hls' ? ['hls', 'hls-native'] : [word]));
  return modes.length ? [...new Set(modes)] : KNOWN;
}

export class Fallback {
  #modes;
  #at = 0;
  /** Mode → the error that made it give way. */
  #failed = new Map();

  /** @param {string[]} modes not empty */
  constructor(modes) {
    this.#modes = modes;
  }

  get mode() {
    return this.#modes[this.#at];
  }

  get hasNext() {
    return this.#at + 1 < this.#modes.length;
  }

  /** The transports that would be preferred to this one, the best first, each with the error that it gave way for. */
  get better() {
    return this.#modes.slice(0, this.#at).map((mode) => ({ mode, error: this.#failed.get(mode) }));
  }

  /** Why the transport that is to play is not the first one; '' when it is. */
  get reason() {
    if (this.#at === 0) return '';
    return this.#modes.slice(0, this.#at).map((mode) => this.#why(mode)).filter(Boolean).join(' · ');
  }

  /** Moves on to the next transport. False when there is none, or when it would fail alike. */
  next(error) {
    if (!error.fallback) return false;
    this.#failed.set(this.mode, error);
    if (!this.hasNext) return false;
    this.#at += 1;
    return true;
  }

  /** All have failed: what to tell of it. The next try begins with the first again. */
  exhausted(error) {
    const several = this.#at > 0;
    const detail = this.#modes.map((mode) => this.#why(mode)).filter(Boolean).join('\n');
    const hint = this.#modes.map((mode) => this.#failed.get(mode)?.hint).filter(Boolean).at(-1) ?? '';
    this.#at = 0;
    if (!several) return error;
    return new PlayError('codecs', 'This browser can’t play this stream', { detail, hint, retry: Retry.SLOW, status: error.status });
  }

  /** A better transport was tried again and still does not work. */
  stillFails(mode, error) {
    this.#failed.set(mode, error);
  }

  /** A better transport works again. */
  restored(mode) {
    this.#at = this.#modes.indexOf(mode);
    for (const lower of this.#modes.slice(this.#at)) this.#failed.delete(lower);
  }

  #why(mode) {
    const error = this.#failed.get(mode);
    return error && `${LABELS[mode]}: ${error.detail || error.title}`;
  }
}
