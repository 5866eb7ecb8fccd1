// Why HLS does not play, in the server's words where it has some.

import { PlayError, Retry } from './play-error.js';

const EXPLAIN_DEADLINE_MS = 8_000;

/** The address of a stream's playlist. `base` ends with a slash. */
export function playlistUrl(base, stream) {
  return `${base}hls/${encodeURIComponent(stream)}/index.m3u8`;
}

/**
 * Players of playlists say only that loading failed. This asks once more and reads the answer.
 * @returns {Promise<PlayError|null>} null when the server now has the playlist
 */
export async function explainPlaylist(url, stream) {
  try {
    const response = await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(EXPLAIN_DEADLINE_MS) });
    if (!response.ok) return await PlayError.fromResponse(response, stream, 'HLS');
    await response.body?.cancel();
    return null;
  } catch (error) {
    return PlayError.unreachable(error);
  }
}

export function unplayable(detail) {
  return new PlayError('codecs', 'This browser can’t play this stream over HLS', { detail, retry: Retry.SLOW, fallback: true });
}

export function interrupted() {
  return new PlayError('connection', 'The connection was lost');
}
