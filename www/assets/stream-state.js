// What the server says of a stream, as far as it matters for the choice of a transport.

const DEADLINE_MS = 5_000;

/**
 * A text that changes whenever a stream that could not be played by one way might now be: another codec, another size, a new
 * connection to the camera.
 * @returns {Promise<string|null>} null while the camera is not live, or the server is not reachable
 */
export async function streamState(base, stream) {
  try {
    const url = `${base}api/streams?src=${encodeURIComponent(stream)}`;
    const response = await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(DEADLINE_MS) });
    if (!response.ok) return null;
    const { state, since, video_codec: video, audio_codec: audio, width, height } = await response.json();
    return state === 'live' ? JSON.stringify([since, video, audio, width, height]) : null;
  } catch {
    return null;
  }
}
