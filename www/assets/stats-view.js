// The statistics overlay: one reading as rows of words.

import * as format from './format.js';

const known = (value, write) => (value === null || value === undefined ? null : write(value));

/** Rows of a reading, by name; a row that this transport has nothing to say about is null. */
function rowsOf(s, reason) {
  return {
    Mode: s.transport ? `${s.mode} · ${s.transport}` : s.mode,
    Why: reason || null,
    Codec: [format.codec(s.videoCodec), format.codec(s.audioCodec)].filter(Boolean).join(' + ') || '–',
    Size: format.size(s.width, s.height),
    'Frame rate': format.frameRate(s.fps),
    Bitrate: format.bitrate(s.bitrate ?? NaN),
    Latency: format.milliseconds(s.latencyMs ?? NaN),
    Jitter: known(s.jitterMs, format.milliseconds),
    Loss: known(s.lossPercent, (percent) => `${format.percent(percent)} (${s.packetsLost})`),
    'Round trip': known(s.rttMs, format.milliseconds),
    'First frame': format.milliseconds(s.firstFrameMs ?? NaN),
    'Frames dropped': `${s.framesDropped} of ${s.framesDecoded + s.framesDropped}`,
    Buffer: format.milliseconds(s.bufferMs ?? NaN),
    Freezes: known(s.freezeCount, String),
  };
}

export class StatsView {
  #list;
  #cells = new Map();

  /** @param {HTMLDListElement} list */
  constructor(list) {
    this.#list = list;
  }

  show(stats, reason) {
    for (const [name, value] of Object.entries(rowsOf(stats, reason))) {
      const cell = this.#cells.get(name) ?? this.#addRow(name);
      cell.hidden = cell.previousElementSibling.hidden = value === null;
      if (value !== null && cell.textContent !== value) cell.textContent = value;
    }
  }

  #addRow(name) {
    const term = Object.assign(document.createElement('dt'), { textContent: name });
    const cell = document.createElement('dd');
    if (name === 'Why') cell.className = 'words';
    this.#cells.set(name, cell);
    this.#list.append(term, cell);
    return cell;
  }
}
