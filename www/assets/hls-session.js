// What both HLS transports are: one stream's playlist in one <video>. What a transport is stands in webrtc.js.

import { explainPlaylist, playlistUrl } from './hls-error.js';
import { HlsStatsReader } from './hls-stats.js';

/** The server may have to dial the camera first. */
export const CONNECT_DEADLINE_MS = 25_000;

export class HlsSession extends EventTarget {
  pc = null;
  connection = 'connecting';
  startedAt = 0;
  hasVideo = true;

  url;
  stream;
  video = null;
  closed = false;
  reader = new HlsStatsReader();

  /** @param {{base: string, stream: string}} options base ends with a slash */
  constructor({ base, stream }) {
    super();
    this.url = playlistUrl(base, stream);
    this.stream = stream;
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.connection = 'closed';
    this.ended();
    this.video?.removeAttribute('src');
    this.video?.load();
  }

  /** Lets go of what a subclass holds. */
  ended() {}

  /** What the server says of the playlist now; null when it has it. */
  check() {
    return explainPlaylist(this.url, this.stream);
  }

  setConnection(connection) {
    if (this.closed || this.connection === connection) return;
    this.connection = connection;
    this.dispatchEvent(new Event('connection'));
  }

  fail(error) {
    if (!this.closed) this.dispatchEvent(new CustomEvent('failed', { detail: error }));
  }
}
