// Keeps hls.js near the live edge: a little faster when it is a little late, a jump when it is far behind, a little slower when so
// close that the next part may come too late.
//
// hls.js can speed up by itself, but only with more than a second in the buffer: low latency has less than that.

import { bufferedAhead } from './hls-stats.js';

const CHECK_MS = 250;
/** Further behind the place to be than this, it jumps there. */
const JUMP_S = 4;
/** After the picture stood still a jump is not noticed, so that a small lag is enough. */
const JUMP_AFTER_STALL_S = 0.5;
/** Speeds up only while this much is loaded, so that catching up does not run dry. */
const CUSHION_S = 0.3;
const BEGIN_S = 0.12;
const END_S = 0.03;
const TOO_CLOSE_S = 0.15;

export class LiveEdge {
  #hls;
  #video;
  #timer;
  #stalled = false;
  #onStall = () => { this.#stalled = true; };

  constructor(hls, video) {
    this.#hls = hls;
    this.#video = video;
    this.#timer = setInterval(() => this.#check(), CHECK_MS);
    video.addEventListener('waiting', this.#onStall);
  }

  stop() {
    clearInterval(this.#timer);
    this.#video.removeEventListener('waiting', this.#onStall);
    this.#setRate(1);
  }

  #check() {
    const { latency, targetLatency, liveSyncPosition } = this.#hls;
    const video = this.#video;
    if (video.paused || video.seeking || !latency || targetLatency === null) return this.#setRate(1);
    const lag = (liveSyncPosition ?? 0) - video.currentTime;
    const loaded = bufferedAhead(video);
    if (lag > JUMP_S || (this.#stalled && loaded > JUMP_AFTER_STALL_S && lag > JUMP_AFTER_STALL_S)) {
      this.#stalled = false;
      this.#setRate(1);
      video.currentTime = liveSyncPosition;
      return;
    }
    if (loaded > JUMP_AFTER_STALL_S) this.#stalled = false;
    const late = latency - targetLatency;
    if (late < -TOO_CLOSE_S) this.#setRate(0.95);
    else if (late < 0 && video.playbackRate < 1) return; // until it is where it should be
    else if (late < END_S || loaded < CUSHION_S) this.#setRate(1);
    else if (late > 0.6) this.#setRate(1.1);
    else if (late > BEGIN_S) this.#setRate(1.05);
  }

  #setRate(rate) {
    if (this.#video.playbackRate !== rate) this.#video.playbackRate = rate;
  }
}
