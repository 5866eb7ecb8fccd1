// Keeps a <video> that is fed live near the end of what has come: a little faster when it is a little late, a jump when it is far
// behind or stands before a hole.

const CHECK_MS = 200;
/** Where it is to be behind the end: enough for the next fragments to come, as seen lately. */
const LEAST_S = 0.2;
const MOST_S = 0.6;
/** Further behind than where it is to be, it is late; this much, it jumps. */
const LATE_S = 0.12;
const JUMP_S = 1.5;
/** Each stall asks for more room, each quiet minute gives some back. */
const MORE_S = 0.1;
const QUIET_MS = 60_000;

export class MseLiveEdge {
  #video;
  #timer;
  #target = LEAST_S;
  #calmSince = performance.now();
  #jump = true;
  #onStall = () => this.#stalled();

  constructor(video) {
    this.#video = video;
    this.#timer = setInterval(() => this.#check(), CHECK_MS);
    video.addEventListener('waiting', this.#onStall);
    video.addEventListener('progress', this.#onProgress);
    this.#check();
  }

  #onProgress = () => { if (this.#jump) this.#check(); };

  stop() {
    clearInterval(this.#timer);
    this.#video.removeEventListener('waiting', this.#onStall);
    this.#video.removeEventListener('progress', this.#onProgress);
    this.#setRate(1);
  }

  /** The next look may jump, however little it is late. */
  catchUp() {
    this.#jump = true;
  }

  /** How far the picture is behind the end of what has come, in ms; null when nothing has. */
  behindMs() {
    const { buffered, currentTime } = this.#video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) * 1000 : null;
  }

  #check() {
    const video = this.#video;
    const { buffered, currentTime } = video;
    if (!buffered.length || video.seeking) return;
    const last = buffered.length - 1;
    const [start, end] = [buffered.start(last), buffered.end(last)];
    const goal = Math.max(start, end - this.#target);
    const late = end - this.#target - currentTime;
    if (currentTime < start || late > JUMP_S || (this.#jump && late > LATE_S)) {
      this.#jump = false;
      this.#setRate(1);
      video.currentTime = goal;
      return;
    }
    this.#jump = false;
    if (video.paused) return;
    if (performance.now() - this.#calmSince > QUIET_MS) {
      this.#calmSince = performance.now();
      this.#target = Math.max(LEAST_S, this.#target - MORE_S);
    }
    if (late > LATE_S * 3) this.#setRate(1.15);
    else if (late > LATE_S) this.#setRate(1.06);
    else if (late < -this.#target * 0.7) this.#setRate(0.94);
    else if (late < 0.02 && video.playbackRate > 1) this.#setRate(1);
    else if (late > -0.02 && video.playbackRate < 1) this.#setRate(1);
  }

  /** Data came late, or the camera was away: what follows may be far ahead. */
  #stalled() {
    this.#jump = true;
    if (this.#video.paused || performance.now() - this.#calmSince < 1_000) return;
    this.#calmSince = performance.now();
    this.#target = Math.min(MOST_S, this.#target + MORE_S);
  }

  #setRate(rate) {
    if (this.#video.playbackRate !== rate) this.#video.playbackRate = rate;
  }
}
