// The WebRTC transport: one WHEP session into one <video>.
//
// A transport is an EventTarget with
//   mode            its word in the player's `mode` attribute
//   connect(video)  start; resolves when media may flow, rejects with a PlayError; sets video.srcObject or video.src
//   close()         end it at once; safe at any time, also twice
//   pause()         stop the media and keep the session; resume() goes on with it. May be left out, then a pause is the end
//   stats()         → Promise of the object that StatsReader describes
//   check()         → Promise of a PlayError or null: what the server says of a session that has gone quiet; may be left out, then
//                   such a session is begun anew
//   connection      'connecting' | 'connected' | 'disconnected' | 'closed'
//   startedAt       performance.now() when the server was first asked
//   hasVideo        false when the stream turned out to be sound only
//   quietMs         so long without a picture is nothing special; may be left out
// and the events `connection` and `failed` (detail: PlayError). Another way to get the media is another file like this one:
// mse.js, hls-transport.js, hls-native.js, mjpeg.js, picture.js. This one also has attach(video), to show a session in another <video> than it began with.

import { PlayError, Retry } from './play-error.js';
import { StatsReader } from './webrtc-stats.js';

const REQUEST_DEADLINE_MS = 25_000;
const CONNECT_DEADLINE_MS = 10_000;
/** Where another transport waits for its turn. */
const IMPATIENT_CONNECT_DEADLINE_MS = 2_500;
/** When ICE servers became known only after the offer was made, try again with them sooner. */
const CONNECT_DEADLINE_WITHOUT_ICE_SERVERS_MS = 4_000;
const DISCONNECTED_GRACE_MS = 4_000;
/** A request that is no longer wanted may still be answered for so long, so that its session can be deleted. */
const ABANDONED_REQUEST_MS = 1_000;

/** Server base URL → ICE servers. The offer never waits for them. */
const iceServers = new Map();
const iceRequests = new Map();

/** Asks for the ICE servers once for each server. */
export function prefetchIceServers(base) {
  if (!iceRequests.has(base)) {
    iceRequests.set(base, fetchIceServers(base).catch(() => iceRequests.delete(base)));
  }
}

async function fetchIceServers(base) {
  const response = await fetch(`${base}api/ice`, { signal: AbortSignal.timeout(REQUEST_DEADLINE_MS) });
  if (!response.ok) return;
  const { ice_servers: servers } = await response.json();
  if (Array.isArray(servers) && servers.length) iceServers.set(base, servers);
}

export class WebRtcTransport extends EventTarget {
  mode = 'webrtc';
  pc = null;
  connection = 'connecting';
  startedAt = 0;
  hasVideo = true;

  #base;
  #stream;
  #media;
  #impatient;
  #shown = null;
  #session = null;
  #closed = false;
  #wasConnected = false;
  #abort = new AbortController();
  #timer = 0;
  #stats = new StatsReader();

  static get supported() {
    return typeof RTCPeerConnection === 'function';
  }

  /**
   * @param {{base: string, stream: string, media: string[], impatient?: boolean}} options base ends with a slash;
   *   media: 'video', 'audio'; impatient: something else can be tried when this does not connect
   */
  constructor({ base, stream, media, impatient = false }) {
    super();
    this.#base = base;
    this.#stream = stream;
    this.#media = media;
    this.#impatient = impatient;
  }

  async connect(video) {
    if (!WebRtcTransport.supported) {
      throw new PlayError('unsupported', 'This browser has no WebRTC', {
        hint: 'Use a current Chrome, Edge, Firefox or Safari.',
        retry: Retry.NEVER,
        fallback: true,
      });
    }
    const servers = iceServers.get(this.#base) ?? [];
    const pc = this.#open(servers);
    const offer = await pc.createOffer();
    if (this.#closed) return;
    // The offer goes out as it is: the server learns our address from the first check, so gathering need not be awaited.
    const [answer] = await Promise.all([this.#post(offer.sdp), pc.setLocalDescription(offer)]);
    if (this.#closed) return;
    await this.#accept(pc, answer);
    if (this.#closed) return;

    this.#noticeGoodbye(pc);
    const receiving = pc.getTransceivers().filter((t) => t.currentDirection === 'recvonly');
    const tracks = receiving.map((t) => t.receiver.track);
    this.hasVideo = tracks.some((t) => t.kind === 'video');
    this.#shown = new MediaStream(tracks);
    this.attach(video);
    if (pc.connectionState !== 'connected') {
      const late = servers.length === 0 && iceServers.has(this.#base);
      const deadline = this.#impatient ? IMPATIENT_CONNECT_DEADLINE_MS : CONNECT_DEADLINE_MS;
      this.#failAfter(late ? CONNECT_DEADLINE_WITHOUT_ICE_SERVERS_MS : deadline);
    }
  }

  attach(video) {
    video.srcObject = this.#shown;
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.connection = 'closed';
    clearTimeout(this.#timer);
    this.pc?.close();
    if (this.#session) this.#delete();
    else setTimeout(() => this.#abort.abort(), ABANDONED_REQUEST_MS);
  }

  stats() {
    return this.#stats.read(this.pc);
  }

  #open(servers) {
    let pc;
    try {
      pc = new RTCPeerConnection({ iceServers: servers, bundlePolicy: 'max-bundle' });
    } catch {
      pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' }); // a server entry that this browser does not take
    }
    this.pc = pc;
    for (const kind of this.#media) pc.addTransceiver(kind, { direction: 'recvonly' });
    pc.addEventListener('connectionstatechange', () => this.#connectionChanged());
    return pc;
  }

  async #post(sdp) {
    this.startedAt = performance.now();
    const deadline = setTimeout(() => this.#abort.abort(), REQUEST_DEADLINE_MS);
    try {
      const response = await fetch(`${this.#base}api/webrtc?src=${encodeURIComponent(this.#stream)}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/sdp' },
        body: sdp,
        signal: this.#abort.signal,
      });
      if (!response.ok) throw await PlayError.fromResponse(response, this.#stream, 'WebRTC');
      const location = response.headers.get('Location');
      if (location) this.#session = new URL(location, response.url).href;
      if (this.#closed) this.#delete();
      this.#learnIceServers(response.headers.get('Link'));
      return await response.text();
    } catch (error) {
      if (error instanceof PlayError) throw error;
      throw PlayError.unreachable(error);
    } finally {
      clearTimeout(deadline);
    }
  }

  async #accept(pc, sdp) {
    try {
      await pc.setRemoteDescription({ type: 'answer', sdp });
    } catch (error) {
      if (this.#closed) return;
      throw new PlayError('codecs', 'The browser did not accept the server’s answer', {
        detail: error?.message ?? '',
        retry: Retry.SLOW,
        fallback: true,
      });
    }
  }

  #learnIceServers(link) {
    const servers = parseIceLinks(link ?? '');
    if (servers.length) iceServers.set(this.#base, servers);
  }

  /** Works while the page goes away, too. */
  #delete() {
    const url = this.#session;
    this.#session = null;
    if (url) fetch(url, { method: 'DELETE', keepalive: true }).catch(() => {});
  }

  /** A server that ends the session says so in DTLS; the connection state would tell only seconds later. */
  #noticeGoodbye(pc) {
    const dtls = pc.getReceivers()[0]?.transport;
    dtls?.addEventListener('statechange', () => {
      if (dtls.state === 'closed' || dtls.state === 'failed') this.#fail();
    });
  }

  #connectionChanged() {
    if (this.#closed) return;
    const state = this.pc.connectionState;
    if (state === 'failed' || state === 'closed') return this.#fail();
    if (state === 'connected') {
      clearTimeout(this.#timer);
      this.#wasConnected = true;
    }
    if (state === 'disconnected') this.#failAfter(DISCONNECTED_GRACE_MS);
    this.connection = state === 'new' ? 'connecting' : state;
    this.dispatchEvent(new Event('connection'));
  }

  #failAfter(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(), ms);
  }

  #fail() {
    if (this.#closed) return;
    const port = new URL(this.#base).port;
    const error = this.#wasConnected
      ? new PlayError('connection', 'The connection was lost')
      : new PlayError('connection', 'No media connection to the server', {
          hint: `A firewall may block ${port ? `port ${port}` : 'the server’s port'} for UDP and TCP.`,
          fallback: true,
        });
    this.dispatchEvent(new CustomEvent('failed', { detail: error }));
  }
}

/** ICE servers out of WHEP `Link` headers: `<turn:host>; rel="ice-server"; username="u"; credential="c"`, comma separated. */
export function parseIceLinks(header) {
  const servers = [];
  for (const [, url, parameters] of header.matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+=(?:"(?:\\.|[^"\\])*"|[^",;\s]*))*)/g)) {
    const values = {};
    for (const [, key, quoted, plain] of parameters.matchAll(/;\s*([\w-]+)=(?:"((?:\\.|[^"\\])*)"|([^",;\s]*))/g)) {
      values[key.toLowerCase()] = quoted === undefined ? plain : quoted.replace(/\\(.)/g, '$1');
    }
    if (values.rel !== 'ice-server' || !/^(stuns?|turns?):/i.test(url)) continue;
    const { username, credential } = values;
    servers.push(username === undefined ? { urls: [url] } : { urls: [url], username, credential: credential ?? '' });
  }
  return servers;
}
