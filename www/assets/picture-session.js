// What both picture transports are: JPEG files one after another, drawn on a canvas whose stream the <video> shows. So that
// everything else about the player stays as it is. What a transport is stands in webrtc.js.

import { PlayError, Retry } from './play-error.js';
import { unplayable } from './socket.js';

/** The server may have to dial the camera first, and to decode. */
const CONNECT_DEADLINE_MS = 25_000;

export class PictureSession extends EventTarget {
  pc = null;
  connection = 'connecting';
  startedAt = 0;
  hasVideo = true;

  base;
  stream;
  closed = false;

  #way;
  #transport;
  #media;
  #canvas = document.createElement('canvas');
  #video = null;
  #next = null;
  #drawing = false;
  #begun = null;
  #counts = { frames: 0, dropped: 0, bytes: 0 };
  #last = null;

  /**
   * @param {{base: string, stream: string, media: string[]}} options base ends with a slash
   * @param {string} way its name for people
   * @param {string} transport what it runs over
   */
  constructor({ base, stream, media }, way, transport) {
    super();
    Object.assign(this, { base, stream });
    this.#media = media;
    this.#way = way;
    this.#transport = transport;
  }

  async connect(video) {
    this.startedAt = performance.now();
    if (!this.#canvas.captureStream) throw new PlayError('unsupported', 'This browser cannot show a canvas as video', { retry: Retry.SLOW, fallback: true });
    if (!this.#media.includes('video')) throw new PlayError('unsupported', 'Pictures have no sound', { retry: Retry.SLOW, fallback: true });
    this.#video = video;
    let timer = 0;
    await new Promise((done, fail) => {
      this.#begun = { done, fail };
      timer = setTimeout(fail, CONNECT_DEADLINE_MS, new PlayError('connection', 'No pictures', { detail: 'nothing came in time', fallback: true }));
      this.open();
    }).finally(() => {
      clearTimeout(timer);
      this.#begun = null;
    });
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.connection = 'closed';
    this.#next = null;
    this.ended();
    if (this.#video) this.#video.srcObject = null;
  }

  /** Begins to get pictures: each goes to show(). */
  open() {}

  /** Lets go of what a subclass holds. */
  ended() {}

  /** @param {Blob} jpeg shown as soon as the one before is; of several that wait, only the newest */
  show(jpeg) {
    this.#counts.bytes += jpeg.size;
    if (this.#next) this.#counts.dropped += 1;
    this.#next = jpeg;
    if (!this.#drawing) this.#draw();
  }

  /** @param {PlayError} error */
  fail(error) {
    if (this.closed) return;
    if (this.#begun) return this.#begun.fail(error);
    this.dispatchEvent(new CustomEvent('failed', { detail: error }));
  }

  async stats() {
    const { frames, dropped, bytes } = this.#counts;
    const now = performance.now();
    const last = this.#last;
    this.#last = { now, frames, bytes };
    const perSecond = (value, before) => ((value - before) * 1000) / (now - last.now);
    return {
      mode: this.#way,
      transport: this.#transport,
      videoCodec: 'JPEG',
      audioCodec: null,
      width: frames ? this.#canvas.width : null,
      height: frames ? this.#canvas.height : null,
      fps: last && perSecond(frames, last.frames),
      bitrate: last && perSecond(bytes, last.bytes) * 8,
      latencyMs: null,
      bytesReceived: bytes,
      audioBytesReceived: 0,
      framesDecoded: frames,
      framesDropped: dropped,
    };
  }

  async #draw() {
    this.#drawing = true;
    while (this.#next && !this.closed) {
      const jpeg = this.#next;
      this.#next = null;
      try {
        const picture = await createImageBitmap(jpeg);
        if (!this.closed) this.#put(picture);
        picture.close();
      } catch (error) {
        this.#counts.dropped += 1;
        this.#begun?.fail(unplayable(error?.message ?? String(error), this.#way));
      }
    }
    this.#drawing = false;
  }

  #put(picture) {
    const canvas = this.#canvas;
    if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
    const context = canvas.getContext('2d');
    // The stream begins with a picture, not with an empty canvas.
    if (!this.#video.srcObject) {
      context.drawImage(picture, 0, 0);
      this.#video.srcObject = canvas.captureStream();
    }
    context.drawImage(picture, 0, 0);
    this.#counts.frames += 1;
    if (this.connection === 'connected') return;
    this.connection = 'connected';
    this.dispatchEvent(new Event('connection'));
    this.#begun?.done();
  }
}
