// The server's WebSocket, `/api/ws`: JSON messages and binary media.

import { PlayError, Retry } from './play-error.js';

const EXPLAIN_DEADLINE_MS = 8_000;

/** Why a WebSocket did not open: browsers do not tell. Where HTTP works, something on the way holds WebSockets back. */
async function explain(base, stream) {
  try {
    const response = await fetch(`${base}api/streams?src=${encodeURIComponent(stream)}`, {
      cache: 'no-store',
      signal: AbortSignal.timeout(EXPLAIN_DEADLINE_MS),
    });
    if (!response.ok) return await PlayError.fromResponse(response, stream, 'WebSocket');
    await response.body?.cancel();
    return new PlayError('connection', 'The server’s WebSocket can’t be opened', {
      detail: 'no WebSocket to the server',
      hint: 'A proxy on the way may not pass WebSockets on.',
      fallback: true,
    });
  } catch (error) {
    return PlayError.unreachable(error);
  }
}

/** What the server says of a request that it refused, or that has come to an end. `way`: 'MSE', 'MJPEG'. */
export function refusal(why, stream, way) {
  if (/^(no codec in common|ffmpeg )/.test(why)) return unplayable(why, way);
  if (/^stream not found/.test(why)) return new PlayError('unknown', `There is no stream called “${stream}”`, { retry: Retry.SLOW, status: 404 });
  if (/^this viewer was ended/.test(why)) return new PlayError('ended', 'You were disconnected by the server’s operator', { retry: Retry.SLOW });
  if (/as many viewers|that is the limit/.test(why)) return new PlayError('limit', 'The server is at its limit', { detail: why });
  return new PlayError('source', 'Camera is not answering', { detail: why });
}

export function unplayable(detail, way) {
  return new PlayError('codecs', `This browser can’t play this stream over ${way}`, { detail, retry: Retry.SLOW, fallback: true });
}

/**
 * @param {string} base ends with a slash
 * @param {string} stream
 * @param {{open: () => void, message: (type: string, value: string) => void, media: (data: ArrayBuffer) => void,
 *   close: (error: PlayError) => void}} on `close` is called once, and not after close()
 */
export function openSocket(base, stream, on) {
  const url = new URL(`api/ws?src=${encodeURIComponent(stream)}`, base);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const listening = new AbortController();
  const { signal } = listening;
  let opened = false;
  socket.addEventListener('open', () => {
    opened = true;
    on.open();
  }, { signal });
  socket.addEventListener('message', ({ data }) => {
    if (typeof data !== 'string') return on.media(data);
    const { type, value } = JSON.parse(data);
    on.message(type, typeof value === 'string' ? value : '');
  }, { signal });
  socket.addEventListener('close', ({ reason }) => {
    listening.abort();
    if (opened) return on.close(new PlayError('connection', 'The connection was lost', { detail: reason }));
    explain(base, stream).then(on.close);
  }, { signal });
  return {
    get isOpen() { return socket.readyState === WebSocket.OPEN; },
    send(type, value) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type, value }));
    },
    close() {
      listening.abort();
      socket.close();
    },
  };
}
