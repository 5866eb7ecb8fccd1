// A card's still picture. It never starts a camera nor keeps one running, and is no viewer: it is asked for only while the
// stream is live and the card is seen.

const EVERY_MS = 10_000;
/** After a failure, e.g. of a server without a decoder. */
const AFTER_FAILURE_MS = 60_000;
const WIDTH = 480;

export class Thumbnail {
  #image;
  #query;
  #seen = false;
  #live = false;
  #loading = false;
  #next = 0;

  /** @param {HTMLImageElement} image @param {string} name the stream's */
  constructor(image, name) {
    this.#image = image;
    this.#query = new URLSearchParams({ src: name, w: WIDTH, cache: '10s', live: '' });
    image.addEventListener('load', () => this.#done(EVERY_MS, !this.#live));
    image.addEventListener('error', () => this.#done(AFTER_FAILURE_MS, true));
    // The card: an image that is hidden is never seen.
    new IntersectionObserver((entries) => {
      this.#seen = entries.at(-1).isIntersecting;
      this.#load();
    }).observe(image.parentElement);
  }

  /** Called with each look at the stream. */
  update(live) {
    this.#live = live;
    if (!live) {
      this.#image.hidden = true;
      this.#next = 0;
    }
    this.#load();
  }

  #load() {
    if (!this.#live || !this.#seen || this.#loading || document.hidden || performance.now() < this.#next) return;
    this.#loading = true;
    this.#query.set('at', Date.now()); // another URL each time: browsers keep pictures
    this.#image.src = `/api/frame.jpeg?${this.#query}`;
  }

  #done(pause, hidden) {
    this.#loading = false;
    this.#next = performance.now() + pause;
    this.#image.hidden = hidden;
  }
}
