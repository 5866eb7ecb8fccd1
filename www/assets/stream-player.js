// <stream-player src="name">: plays one stream of a Streamgate server. docs/player.md has the manual.

import { LABELS, parseModes } from './fallback.js';
import { HlsTransport } from './hls-transport.js';
import { NativeHlsTransport } from './hls-native.js';
import { MjpegTransport } from './mjpeg.js';
import { MseTransport } from './mse.js';
import { PictureTransport } from './picture.js';
import { Playback } from './playback.js';
import { buildView, ICONS } from './player-view.js';
import { StatsView } from './stats-view.js';
import { streamState } from './stream-state.js';
import { WebRtcTransport, prefetchIceServers } from './webrtc.js';

const IDLE_MS = 2_800;
const COUNTDOWN_MS = 250;
/** The server this file came from; its root is one folder up. */
const HOME = new URL('..', import.meta.url).href;

const TRANSPORTS = {
  webrtc: WebRtcTransport, mse: MseTransport, hls: HlsTransport, 'hls-native': NativeHlsTransport, mjpeg: MjpegTransport, picture: PictureTransport,
};

/** The viewer's choice of sound; storage may be forbidden or full. */
const memory = {
  read() {
    try {
      return JSON.parse(localStorage.getItem('stream-player.sound')) ?? {};
    } catch {
      return {};
    }
  },
  write(sound) {
    try {
      localStorage.setItem('stream-player.sound', JSON.stringify(sound));
    } catch {
      // not remembered then
    }
  },
};

export class StreamPlayer extends HTMLElement {
  static observedAttributes = ['src', 'base', 'media', 'mode', 'controls', 'muted'];

  #ui;
  #playback;
  #idleTimer = 0;
  #countdownTimer = 0;
  #resume = false;
  #statsView;

  constructor() {
    super();
    this.#ui = buildView(this.attachShadow({ mode: 'open' }));
    this.#statsView = new StatsView(this.#ui.stats);
    this.#playback = new Playback(this.#ui.video, {
      modes: () => parseModes(this.getAttribute('mode')),
      makeTransport: (mode, more) => this.#makeTransport(mode, more),
      streamState: () => streamState(this.#base, this.src),
    });
    this.#listen();
  }

  /** 'connecting' | 'playing' | 'waiting' | 'paused' | 'error' */
  get state() { return this.#playback.state; }
  /** What the viewer is told, '' when all is well. */
  get message() { return this.#playback.message; }
  /** 'webrtc' | 'mse' | 'hls' | 'hls-native' | 'mjpeg' | 'picture': what plays or is being tried; null when paused. Setting it sets the attribute. */
  get mode() { return this.#playback.mode; }
  set mode(value) { this.setAttribute('mode', value); }
  /** Why it is not the first one of the `mode` attribute, '' when it is. */
  get reason() { return this.#playback.reason; }
  /** The current RTCPeerConnection, or null. */
  get pc() { return this.#playback.transport?.pc ?? null; }
  /** From the request to the first picture on screen, in ms, or null. */
  get firstFrameMs() { return this.#playback.firstFrameMs; }
  /** The last reading, once a second while connected, or null. */
  get stats() {
    const stats = this.#playback.stats;
    return stats && { ...stats, firstFrameMs: this.firstFrameMs };
  }
  get video() { return this.#ui.video; }
  get muted() { return this.#ui.video.muted; }
  set muted(value) { this.#setSound({ muted: Boolean(value) }); }
  get volume() { return this.#ui.video.volume; }
  set volume(value) { this.#setSound({ volume: value, muted: value <= 0 }); }
  get src() { return this.getAttribute('src') ?? ''; }
  set src(value) { this.setAttribute('src', value); }

  play() { if (this.src) this.#playback.start(); }
  pause() { this.#playback.pause(); }

  connectedCallback() {
    const sound = memory.read();
    const attribute = this.getAttribute('muted');
    const muted = attribute === null ? sound.muted ?? this.hasAttribute('autoplay') : !['false', '0'].includes(attribute);
    this.#ui.video.muted = muted;
    if (sound.volume > 0 && sound.volume <= 1) this.#ui.video.volume = sound.volume;
    addEventListener('pagehide', this.#leave);
    addEventListener('pageshow', this.#comeBack);
    document.addEventListener('fullscreenchange', this.#showFullscreen);
    this.#render();
    this.#showSound();
    if (this.hasAttribute('autoplay')) this.play();
  }

  disconnectedCallback() {
    removeEventListener('pagehide', this.#leave);
    removeEventListener('pageshow', this.#comeBack);
    document.removeEventListener('fullscreenchange', this.#showFullscreen);
    clearInterval(this.#countdownTimer);
    clearTimeout(this.#idleTimer);
    this.#playback.stop();
  }

  attributeChangedCallback(name, before, after) {
    if (before === after || !this.isConnected) return;
    if (name === 'muted') {
      this.#ui.video.muted = after !== null && !['false', '0'].includes(after);
    } else if (name !== 'controls') {
      const playing = this.#playback.wanted;
      this.#playback.stop();
      if (name === 'src') this.#ui.still.hidden = true; // another stream: its picture must not stay
      if (playing) this.play();
    }
    this.#render();
  }

  /** Acts on a key press; true when it meant something. For pages that want the keys to work everywhere. */
  handleKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !this.hasAttribute('controls')) return false;
    const target = event.composedPath()[0];
    if (target instanceof Element && target.matches('input:not([type=range]), textarea, select, [contenteditable]')) return false;
    const onButton = target instanceof Element && target.matches('button, a, summary');
    const actions = {
      k: () => this.#togglePlay(),
      m: () => this.#toggleMute(),
      f: () => this.#toggleFullscreen(),
      i: () => this.#toggleStats(),
    };
    const action = event.key === ' ' && !onButton ? actions.k : actions[event.key.toLowerCase()];
    if (!action || event.repeat) return false;
    event.preventDefault();
    action();
    this.#wake();
    return true;
  }

  get #base() { return new URL(this.getAttribute('base') || HOME, document.baseURI).href.replace(/\/*$/, '/'); }

  #makeTransport(mode, more) {
    const base = this.#base;
    const wanted = (this.getAttribute('media') ?? '').split(',').map((kind) => kind.trim());
    const media = ['video', 'audio'].filter((kind) => wanted.includes(kind));
    if (mode === 'webrtc') queueMicrotask(() => prefetchIceServers(base)); // after the offer is on its way
    return new TRANSPORTS[mode]({ base, stream: this.src, media: media.length ? media : ['video', 'audio'], ...more });
  }

  #leave = () => {
    this.#resume = this.#playback.wanted;
    this.#playback.stop();
  };
  #comeBack = (event) => {
    if (event.persisted && this.#resume) this.play();
  };

  #listen() {
    const ui = this.#ui;
    const on = (element, type, act) => element.addEventListener(type, act);
    on(ui.play, 'click', () => this.#togglePlay());
    on(ui.bigPlay, 'click', () => { this.play(); ui.stage.focus({ preventScroll: true }); });
    on(ui.retry, 'click', () => this.#playback.retryNow());
    on(ui.mute, 'click', () => this.#toggleMute());
    on(ui.unmute, 'click', () => { this.#setSound({ muted: false }); ui.stage.focus({ preventScroll: true }); });
    on(ui.volume, 'input', () => { this.volume = Number(ui.volume.value); });
    on(ui.showStats, 'click', () => this.#toggleStats());
    on(ui.snapshot, 'click', () => this.#saveSnapshot());
    on(ui.pip, 'click', () => this.#togglePip());
    on(ui.full, 'click', () => this.#toggleFullscreen());
    on(ui.video, 'dblclick', () => this.hasAttribute('controls') && this.#toggleFullscreen());
    on(ui.video, 'volumechange', () => this.#showSound());
    on(ui.top.firstElementChild, 'slotchange', (event) => ui.top.classList.toggle('filled', event.target.assignedElements().length > 0));
    on(this, 'keydown', (event) => this.handleKey(event));
    for (const type of ['pointermove', 'pointerdown', 'focusin', 'keydown']) on(this, type, () => this.#wake());
    on(this, 'pointerleave', (event) => event.pointerType === 'mouse' && this.#rest());

    const playback = this.#playback;
    on(playback, 'freeze', () => this.#freeze());
    on(playback, 'frame', () => { ui.still.hidden = true; });
    on(playback, 'stats', () => this.#showStats());
    on(playback, 'blocked', (event) => { if (event.detail === 'sound') ui.unmute.hidden = false; });
    on(playback, 'failure', (event) => this.dispatchEvent(new CustomEvent('error', { detail: event.detail })));
    let { state, mode } = playback;
    on(playback, 'change', () => {
      this.#render();
      if (playback.mode !== mode) {
        mode = playback.mode;
        this.dispatchEvent(new CustomEvent('modechange', { detail: { mode, reason: this.reason } }));
      }
      if (playback.state === state) return;
      state = playback.state;
      this.dispatchEvent(new CustomEvent('statechange', { detail: { state, message: this.message } }));
      if (state === 'playing') this.dispatchEvent(new Event('playing'));
    });
  }

  // --- what is shown

  #render() {
    const ui = this.#ui;
    const { state, error, wanted, transport } = this.#playback;
    for (const name of ['connecting', 'playing', 'waiting', 'paused', 'error']) ui.stage.classList.toggle(name, name === state);
    ui.stage.classList.toggle('failed', Boolean(error));
    ui.bar.hidden = !this.hasAttribute('controls');
    ui.bigPlay.hidden = wanted || !this.src;
    ui.spinner.hidden = state !== 'connecting' || Boolean(error);
    ui.badge.hidden = state !== 'waiting';
    ui.badge.lastElementChild.textContent = this.message;
    ui.soundOnly.hidden = !(state === 'playing' && transport && !transport.hasVideo);
    label(ui.play, wanted ? 'Pause' : 'Play', wanted ? ICONS.pause : ICONS.play, 'k');
    ui.live.lastElementChild.textContent = { playing: 'Live', paused: 'Paused', waiting: 'Waiting', error: 'Offline' }[state] ?? 'Connecting';
    this.#showMode();
    ui.snapshot.hidden = !(transport?.hasVideo && this.firstFrameMs !== null) && ui.still.hidden;
    ui.pip.hidden = !(document.pictureInPictureEnabled && ui.video.requestPictureInPicture && transport?.hasVideo !== false);
    ui.full.hidden = !(this.requestFullscreen || ui.video.webkitEnterFullscreen);
    if (state === 'paused') { ui.stats.hidden = true; ui.unmute.hidden = true; }
    ui.showStats.setAttribute('aria-pressed', String(!ui.stats.hidden));
    this.#showError(error);
    this.#wake();
  }

  #showMode() {
    const { mode } = this.#ui;
    const { state, reason } = this.#playback;
    mode.hidden = state === 'paused' || state === 'error';
    mode.textContent = this.mode === 'hls-native' ? 'HLS' : LABELS[this.mode];
    mode.classList.toggle('second', Boolean(reason));
    mode.title = reason;
  }

  #showError(error) {
    const ui = this.#ui;
    clearInterval(this.#countdownTimer);
    ui.panel.hidden = !error;
    if (!error) return;
    const set = (element, value) => { if (element.textContent !== value) element.textContent = value; };
    set(ui.panel.querySelector('h2'), error.title);
    set(ui.detail, error.detail.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase()));
    set(ui.hint, error.hint);
    set(ui.why, this.reason);
    const { retryAt, transport } = this.#playback;
    ui.retry.hidden = !retryAt && !transport;
    ui.retry.disabled = Boolean(transport);
    const count = () => {
      const seconds = Math.max(1, Math.ceil((retryAt - performance.now()) / 1000));
      set(ui.countdown, transport ? 'Trying again…' : retryAt ? `Trying again in ${seconds} s` : '');
    };
    count();
    if (retryAt) this.#countdownTimer = setInterval(count, COUNTDOWN_MS);
  }

  #showStats() {
    if (this.#ui.stats.hidden) return;
    this.#ui.stats.classList.toggle('wide', this.clientHeight < 330 && this.clientWidth > 460);
    this.#statsView.show(this.stats, this.reason);
  }

  #showSound() {
    const { video, mute, volume, unmute } = this.#ui;
    const silent = video.muted || video.volume === 0;
    label(mute, silent ? 'Unmute' : 'Mute', silent ? ICONS.muted : ICONS.sound, 'm');
    volume.value = silent ? 0 : video.volume;
    if (!silent) unmute.hidden = true;
  }

  #showFullscreen = () => {
    const full = this.#isFullscreen();
    label(this.#ui.full, full ? 'Leave full screen' : 'Full screen', full ? ICONS.unfull : ICONS.full, 'f');
  };

  /** Shows the controls; they go again when the viewer does nothing. */
  #wake() {
    this.#ui.stage.classList.remove('idle');
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.#rest(), IDLE_MS);
  }

  #rest() {
    if (this.state === 'playing' || this.state === 'waiting') this.#ui.stage.classList.add('idle');
  }

  /** Copies the picture that is about to go away. Without one, an older copy stays. */
  #freeze() {
    this.#ui.still.hidden = !this.#copyPicture(this.#ui.still) && this.#ui.still.hidden;
  }

  #copyPicture(canvas) {
    const { video } = this.#ui;
    if (video.readyState < 2 || !video.videoWidth) return false;
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext('2d').drawImage(video, 0, 0);
    return true;
  }

  // --- what the viewer does

  #togglePlay() { this.#playback.wanted ? this.pause() : this.play(); }

  #toggleMute() {
    const { video } = this.#ui;
    const muted = !(video.muted || video.volume === 0);
    this.#setSound(muted || video.volume > 0 ? { muted } : { muted, volume: 1 });
  }

  #setSound({ muted, volume }) {
    const { video } = this.#ui;
    if (muted !== undefined) video.muted = muted;
    if (volume > 0) video.volume = Math.min(1, volume);
    memory.write({ muted: video.muted, volume: video.volume });
    this.#showSound();
  }

  #toggleStats() {
    const { stats, showStats } = this.#ui;
    stats.hidden = !stats.hidden || !this.#playback.wanted;
    showStats.setAttribute('aria-pressed', String(!stats.hidden));
    if (this.#playback.stats) this.#showStats();
  }

  #isFullscreen() { return this.getRootNode().fullscreenElement === this; }

  #toggleFullscreen() {
    if (this.#isFullscreen()) document.exitFullscreen();
    else if (this.requestFullscreen) this.requestFullscreen().catch(() => {});
    else this.#ui.video.webkitEnterFullscreen?.(); // iPhone: only the video itself can
  }

  #togglePip() {
    const { video } = this.#ui;
    const done = this.shadowRoot.pictureInPictureElement === video ? document.exitPictureInPicture() : video.requestPictureInPicture();
    done.catch(() => {});
  }

  #saveSnapshot() {
    const canvas = document.createElement('canvas');
    const source = this.#copyPicture(canvas) ? canvas : this.#ui.still;
    source.toBlob((blob) => {
      if (!blob) return;
      const url = URL.createObjectURL(blob);
      const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
      Object.assign(document.createElement('a'), { href: url, download: `${this.src} ${time}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    });
  }
}

/** Changes a button's meaning; touches nothing when it already has it. */
function label(button, name, picture, key) {
  if (button.getAttribute('aria-label') === name) return;
  button.setAttribute('aria-label', name);
  button.title = `${name} (${key})`;
  button.innerHTML = picture; // one of ICONS
}

customElements.define('stream-player', StreamPlayer);
