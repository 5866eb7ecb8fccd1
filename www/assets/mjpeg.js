// The MJPEG transport: the server pushes pictures over its WebSocket. All of an MJPEG camera's, the keyframes of others.

import { PictureSession } from './picture-session.js';
import { PlayError } from './play-error.js';
import { openSocket, refusal } from './socket.js';

export class MjpegTransport extends PictureSession {
  mode = 'mjpeg';
  /** Keyframes may be far apart. */
  quietMs = 15_000;

  #socket = null;

  constructor(options) {
    super(options, 'MJPEG', 'WebSocket');
  }

  open() {
    this.#socket = openSocket(this.base, this.stream, {
      open: () => this.#socket.send('mjpeg'),
      media: (data) => this.show(new Blob([data], { type: 'image/jpeg' })),
      message: (type, value) => {
        if (type === 'error' && value.startsWith('mjpeg: ')) this.fail(refusal(value.slice(7), this.stream, 'MJPEG'));
      },
      close: (error) => this.fail(error),
    });
  }

  ended() {
    this.#socket?.close();
  }

  /** The session and the picture stay; nothing is sent. */
  pause() {
    this.#socket.send('control', 'pause');
  }

  /** Goes on with the newest picture. */
  resume() {
    this.#socket.send('control', 'play');
  }

  /** A socket that is open is a session that goes on with the camera. */
  async check() {
    return this.#socket?.isOpen ? null : new PlayError('connection', 'The connection was lost');
  }
}
