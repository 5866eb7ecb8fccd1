// Reads a <video> that plays HLS into the same flat object as webrtc-stats.js. Rates come from the difference to the previous reading.

const NAMES = [
  [/^avc[13]/, 'H264'], [/^(hvc1|hev1)/, 'H265'], [/^mp4a/, 'AAC'], [/^opus/i, 'Opus'], [/^flac/i, 'FLAC'], [/^av01/, 'AV1'],
];

export function codecName(codec) {
  return NAMES.find(([pattern]) => pattern.test(codec ?? ''))?.[1] ?? codec ?? null;
}

/** What is in hls.js' tracks (`audio`, `video`, `audiovideo`, each with `codec` such as `avc1.64001f,mp4a.40.2`). */
export function codecsOf(tracks) {
  const words = ['video', 'audio', 'audiovideo'].flatMap((name) => (tracks[name]?.codec ?? '').split(',')).filter(Boolean);
  const isSound = (word) => /^(mp4a|opus|flac|ac-3|ec-3)/i.test(word.trim());
  const found = {};
  const videoCodec = words.find((word) => !isSound(word));
  const audioCodec = words.find(isSound);
  if (videoCodec) found.videoCodec = videoCodec.trim();
  if (audioCodec) found.audioCodec = audioCodec.trim();
  return found;
}

export class HlsStatsReader {
  #last = null;

  /**
   * @param {HTMLVideoElement} video
   * @param {{transport: string, bytes: number, latencyMs: number|null, videoCodec?: string, audioCodec?: string}} known
   */
  read(video, { transport, bytes, latencyMs, videoCodec = null, audioCodec = null }) {
    const quality = video.getVideoPlaybackQuality?.() ?? {};
    const now = performance.now();
    const dropped = quality.droppedVideoFrames ?? 0;
    const frames = (quality.totalVideoFrames ?? 0) - dropped;
    // Counters of the element begin anew with each source; bytes without a counter (native HLS): that it goes on is what matters.
    const received = bytes ?? video.webkitVideoDecodedByteCount ?? Math.round(video.currentTime * 1000);
    const last = this.#last;
    const seconds = last ? (now - last.now) / 1000 : 0;
    const perSecond = (value, before) => (seconds > 0 ? Math.max(0, value - before) / seconds : null);
    this.#last = { now, frames, received };
    return {
      mode: 'HLS',
      transport,
      videoCodec: codecName(videoCodec),
      audioCodec: codecName(audioCodec),
      width: video.videoWidth || null,
      height: video.videoHeight || null,
      fps: last ? perSecond(frames, last.frames) : null,
      bitrate: last && (bytes !== null || 'webkitVideoDecodedByteCount' in video) ? perSecond(received, last.received) * 8 : null,
      latencyMs,
      /** what is loaded and not shown yet */
      bufferMs: bufferedAhead(video) * 1000,
      bytesReceived: received,
      audioBytesReceived: received,
      framesDecoded: frames,
      framesDropped: dropped,
    };
  }
}

/** Seconds that are loaded beyond the current position. */
export function bufferedAhead(video) {
  const { buffered, currentTime } = video;
  for (let i = 0; i < buffered.length; i += 1) {
    if (buffered.start(i) <= currentTime + 0.1 && buffered.end(i) > currentTime) return buffered.end(i) - currentTime;
  }
  return 0;
}
