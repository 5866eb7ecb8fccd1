// A SourceBuffer that takes what comes in order, keeps little of the past and has a bounded queue.

/** What is further behind the picture than KEEP_S is removed, once it is TRIM_S. */
const KEEP_S = 4;
const TRIM_S = 10;
/** More than this is never waited for: a tab that sleeps begins anew when it wakes. */
const MAX_QUEUE = 48 * 1024 * 1024;

export class MseBuffer {
  #source;
  #video;
  #buffer;
  #on;
  #queue = [];
  #size = 0;
  #closed = false;

  /** @param {{arrived: () => void, failed: (why: string) => void}} on */
  constructor(source, mime, video, on) {
    this.#source = source;
    this.#video = video;
    this.#on = on;
    this.#buffer = source.addSourceBuffer(mime);
    this.#buffer.mode = 'segments';
    this.#buffer.addEventListener('updateend', () => {
      if (this.#buffer.buffered.length) this.#on.arrived();
      this.#pump();
    });
    this.#buffer.addEventListener('error', () => this.#fail(video.error?.message || 'the browser did not take the media'));
  }

  append(data) {
    this.#queue.push(data);
    this.#size += data.byteLength;
    if (this.#size > MAX_QUEUE) return this.#fail('the browser takes no media');
    this.#pump();
  }

  /** What comes from here on has other codecs. */
  changeType(mime) {
    this.#queue.push(mime);
    this.#pump();
  }

  close() {
    this.#closed = true;
    this.#queue = [];
  }

  #pump() {
    if (this.#closed || this.#buffer.updating || !this.#queue.length || this.#source.readyState !== 'open') return;
    try {
      if (this.#trim()) return;
      if (typeof this.#queue[0] === 'string') {
        this.#buffer.changeType(this.#queue.shift());
        return void this.#pump();
      }
      this.#buffer.appendBuffer(this.#take());
    } catch (error) {
      // Full: what has been shown makes room, or nothing does.
      if (error?.name === 'QuotaExceededError' && this.#trim(1)) return;
      this.#fail(error?.message ?? String(error));
    }
  }

  /** All that waits, up to the next change of codecs, in one piece. */
  #take() {
    const change = this.#queue.findIndex((item) => typeof item === 'string');
    const items = this.#queue.splice(0, change < 0 ? this.#queue.length : change);
    const size = items.reduce((sum, item) => sum + item.byteLength, 0);
    this.#size -= size;
    if (items.length === 1) return items[0];
    const whole = new Uint8Array(size);
    let at = 0;
    for (const item of items) {
      whole.set(new Uint8Array(item), at);
      at += item.byteLength;
    }
    return whole;
  }

  /** Removes what is long past. True when it began to. */
  #trim(trim = TRIM_S) {
    const { buffered } = this.#buffer;
    if (!buffered.length) return false;
    const start = buffered.start(0);
    const now = this.#video.currentTime;
    if (now - start < trim) return false;
    this.#buffer.remove(start, now - Math.min(KEEP_S, trim / 2));
    return true;
  }

  #fail(why) {
    if (this.#closed) return;
    this.close();
    this.#on.failed(why);
  }
}
