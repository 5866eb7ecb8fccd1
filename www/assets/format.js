// Numbers and names as people read them. '' or '–' for what is not known.

const NONE = '–';

export function bitrate(bitsPerSecond) {
  if (!(bitsPerSecond >= 0)) return NONE;
  if (bitsPerSecond >= 1e6) return `${(bitsPerSecond / 1e6).toFixed(bitsPerSecond >= 1e7 ? 0 : 1)} Mbit/s`;
  return `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

export function bytes(count) {
  if (!(count >= 0)) return NONE;
  const [size, unit] = count >= 1e9 ? [count / 1e9, 'GB'] : count >= 1e6 ? [count / 1e6, 'MB'] : [count / 1e3, 'kB'];
  return `${size.toFixed(size < 10 ? 1 : 0)} ${unit}`;
}

export function frameRate(fps) {
  return fps > 0 ? `${Number(fps.toFixed(fps < 10 ? 1 : 0))} fps` : NONE;
}

export function size(width, height) {
  return width > 0 && height > 0 ? `${width} × ${height}` : NONE;
}

export function milliseconds(value) {
  if (!(value >= 0)) return NONE;
  return value < 10_000 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

export function percent(value) {
  return value >= 0 ? `${value.toFixed(value > 0 && value < 10 ? 1 : 0)} %` : NONE;
}

const CODECS = {
  H264: 'H.264', H265: 'H.265', HEVC: 'H.265', AVC: 'H.264', MJPEG: 'JPEG', AAC: 'AAC', 'MPEG4-GENERIC': 'AAC', OPUS: 'Opus',
  PCMA: 'G.711\u00a0A', PCM_ALAW: 'G.711\u00a0A', PCMU: 'G.711\u00a0µ', PCM_MULAW: 'G.711\u00a0µ',
};

export function codec(name) {
  if (typeof name !== 'string' || !name) return '';
  return CODECS[name.toUpperCase()] ?? name.slice(0, 16);
}

/** "2 viewers", "1 viewer" */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** How long ago an RFC 3339 time was: "12 s", "5 min", "3 h", "2 d". */
export function since(time, now = Date.now()) {
  return duration(Math.round((now - Date.parse(time)) / 1000));
}

export function duration(seconds) {
  if (!(seconds >= 0)) return '';
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}
