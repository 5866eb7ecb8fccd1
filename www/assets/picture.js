// The last resort, plain HTTP: the newest keyframe as a picture, asked for again and again.

import { PictureSession } from './picture-session.js';
import { PlayError } from './play-error.js';
import { unplayable } from './socket.js';

const EVERY_MS = 1_000;
const REQUEST_DEADLINE_MS = 25_000;

export class PictureTransport extends PictureSession {
  mode = 'picture';

  #timer = 0;
  #request = null;

  constructor(options) {
    super(options, 'pictures', 'HTTP');
  }

  async open() {
    const asked = performance.now();
    try {
      const picture = await this.#fetch();
      if (this.closed) return;
      this.show(picture);
      this.#timer = setTimeout(() => this.open(), Math.max(0, asked + EVERY_MS - performance.now()));
    } catch (error) {
      this.fail(error);
    }
  }

  ended() {
    clearTimeout(this.#timer);
    this.#request?.abort();
  }

  async #fetch() {
    const request = new AbortController();
    this.#request = request;
    const deadline = setTimeout(() => request.abort(), REQUEST_DEADLINE_MS);
    try {
      const url = `${this.base}api/frame.jpeg?src=${encodeURIComponent(this.stream)}`;
      const response = await fetch(url, { cache: 'no-store', signal: request.signal });
      if (response.ok) return await response.blob();
      const error = await PlayError.fromResponse(response, this.stream, 'pictures');
      // Busy comes with a time to ask again; without one there is no decoder, or it could not.
      throw error.status === 503 && !error.retryAfterMs ? unplayable(error.detail, 'pictures') : error;
    } catch (error) {
      if (error instanceof PlayError) throw error;
      throw PlayError.unreachable(error);
    } finally {
      clearTimeout(deadline);
    }
  }
}
