// The MSE transport: fragments of MP4 over the server's WebSocket into a MediaSource. What a transport is stands in webrtc.js.
//
// The server makes a time for each viewer that begins at zero and has no holes, shows the past in fast motion, and moves a
// viewer that is behind to a keyframe. What is left to do here is to stay near the end of what has come.

import { HlsStatsReader } from './hls-stats.js';
import { MseBuffer } from './mse-buffer.js';
import { MseLiveEdge } from './mse-live-edge.js';
import { PlayError, Retry } from './play-error.js';
import { openSocket, refusal, unplayable } from './socket.js';

/** The server may have to dial the camera first. */
const CONNECT_DEADLINE_MS = 25_000;
/** What is asked for; the stream's own profile and level are told by the server. */
const CODECS = ['avc1.640029', 'avc1.64002A', 'avc1.640033', 'hvc1.1.6.L153.B0', 'mp4a.40.2', 'mp4a.40.5', 'flac', 'opus'];

/** Where there is no MediaSource (iPhones), there is its managed form. */
function mediaSourceClass() {
  return self.ManagedMediaSource ?? self.MediaSource ?? null;
}

export class MseTransport extends EventTarget {
  mode = 'mse';
  pc = null;
  connection = 'connecting';
  startedAt = 0;
  hasVideo = true;

  #base;
  #stream;
  #media;
  #socket = null;
  #video = null;
  #buffer = null;
  #edge = null;
  #url = '';
  #closed = false;
  #bytes = 0;
  #mime = '';
  #stats = new HlsStatsReader();
  #begun = null;

  /** @param {{base: string, stream: string, media: string[]}} options base ends with a slash */
  constructor({ base, stream, media }) {
    super();
    this.#base = base;
    this.#stream = stream;
    this.#media = media;
  }

  async connect(video) {
    this.startedAt = performance.now();
    const Source = mediaSourceClass();
    const codecs = CODECS.filter((codec) => Source?.isTypeSupported(`video/mp4; codecs="${codec}"`)).filter((codec) => this.#wants(codec));
    if (!codecs.length) {
      throw new PlayError('unsupported', 'This browser has no Media Source Extensions', { retry: Retry.SLOW, fallback: true });
    }
    this.#video = video;
    const source = new Source();
    const opened = new Promise((done) => source.addEventListener('sourceopen', done, { once: true }));
    this.#attach(source, video);
    let timer = 0;
    await new Promise((done, fail) => {
      this.#begun = { done, fail };
      const late = new PlayError('connection', 'No media by MSE', { detail: 'nothing came in time', fallback: true });
      timer = setTimeout(fail, CONNECT_DEADLINE_MS, late);
      this.#listen(source, opened, codecs);
    }).finally(() => {
      clearTimeout(timer);
      this.#begun = null;
    });
    if (this.#closed) return;
    this.#edge = new MseLiveEdge(video);
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.connection = 'closed';
    this.#edge?.stop();
    this.#socket?.close();
    this.#buffer?.close();
    if (this.#url) URL.revokeObjectURL(this.#url);
    const video = this.#video;
    if (!video) return;
    video.srcObject = null;
    video.removeAttribute('src');
    video.load();
  }

  /** The session and the picture stay; nothing is sent. */
  pause() {
    this.#socket?.send('control', 'pause');
  }

  /** Goes on at live in the same session. */
  resume() {
    this.#socket?.send('control', 'play');
    this.#edge?.catchUp();
  }

  /** A socket that is open is a session that goes on with the camera. */
  async check() {
    return this.#socket?.isOpen ? null : new PlayError('connection', 'The connection was lost');
  }

  async stats() {
    const [video, audio] = splitCodecs(this.#mime);
    return {
      ...this.#stats.read(this.#video, {
        transport: 'WebSocket',
        bytes: this.#bytes,
        latencyMs: this.#buffer ? this.#edge?.behindMs() ?? null : null,
        videoCodec: video,
        audioCodec: audio,
      }),
      mode: 'MSE',
    };
  }

  #wants(codec) {
    return this.#media.includes(/^(avc|hvc|hev)/.test(codec) ? 'video' : 'audio');
  }

  #attach(source, video) {
    video.disableRemotePlayback = true; // a condition of ManagedMediaSource
    video.srcObject = null;
    if (self.ManagedMediaSource && source instanceof self.ManagedMediaSource) {
      video.srcObject = source;
      return;
    }
    this.#url = URL.createObjectURL(source);
    video.src = this.#url;
  }

  #listen(source, opened, codecs) {
    this.#socket = openSocket(this.#base, this.#stream, {
      open: async () => {
        await opened;
        this.#socket?.send('mse', codecs.join());
      },
      media: (data) => {
        this.#bytes += data.byteLength;
        this.#buffer?.append(data);
      },
      message: (type, value) => {
        if (type === 'mse') this.#setType(source, value);
        else if (type === 'error' && value.startsWith('mse')) this.#fail(refusal(value.slice(4).trim(), this.#stream, 'MSE'));
      },
      close: (error) => this.#fail(error),
    });
  }

  #setType(source, mime) {
    this.#mime = mime;
    this.hasVideo = Boolean(splitCodecs(mime)[0]);
    if (!mediaSourceClass().isTypeSupported(mime)) return this.#fail(unplayable(`this browser cannot decode ${codecsOf(mime)}`, 'MSE'));
    try {
      if (this.#buffer) return this.#buffer.changeType(mime);
      this.#buffer = new MseBuffer(source, mime, this.#video, {
        arrived: () => this.#arrived(),
        failed: (why) => this.#fail(unplayable(why, 'MSE')),
      });
    } catch (error) {
      this.#fail(unplayable(error?.message ?? String(error), 'MSE'));
    }
  }

  #arrived() {
    if (this.connection === 'connecting') {
      this.connection = 'connected';
      this.dispatchEvent(new Event('connection'));
    }
    this.#begun?.done();
  }

  #fail(error) {
    if (this.#closed) return;
    if (this.#begun) return this.#begun.fail(error);
    this.dispatchEvent(new CustomEvent('failed', { detail: error }));
  }
}

function codecsOf(mime) {
  return /codecs="([^"]*)"/.exec(mime)?.[1] ?? mime;
}

/** `video/mp4; codecs="avc1.64001f,mp4a.40.2"` → ['avc1.64001f', 'mp4a.40.2'], null where there is none. */
function splitCodecs(mime) {
  const words = mime ? codecsOf(mime).split(',').map((word) => word.trim()) : [];
  const isVideo = (word) => /^(avc|hvc|hev)/.test(word);
  return [words.find(isVideo) ?? null, words.find((word) => !isVideo(word)) ?? null];
}
