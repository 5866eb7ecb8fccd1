// The start page: the list of streams, kept up to date, and the way to add and delete them.

import { listStreams, serverInfo } from './api.js';
import { StreamCard, playerUrl, stateOf, viewersOf } from './card.js';
import { addDialog, deleteDialog } from './dialogs.js';
import * as format from './format.js';
import './stream-player.js';
import { viewersDialog } from './viewers.js';

const POLL_MS = 2_000;
const LAST_POLL_MS = 15_000;
const TOAST_MS = 6_000;
const FILTER_FROM = 7;

const find = (id) => document.getElementById(id);
const ui = {
  add: find('add'), addFirst: find('add-first'), banner: find('banner'), cards: find('cards'), empty: find('empty'), filter: find('filter'),
  hero: find('hero'), heroPlayer: find('hero-player'), heroSide: find('hero-side'), list: find('list'), loading: find('loading'),
  noMatch: find('no-match'), summary: find('summary'), toast: find('toast'), version: find('version'),
};
const cards = new Map();
const order = new Intl.Collator(undefined, { numeric: true }).compare;
let streams = {};

const openAdd = addDialog({
  exists: (name) => cards.has(name),
  onAdded: (name) => {
    toast(`“${name}” is added.`, { text: 'Watch', href: playerUrl(name) });
    poll.now();
  },
});
const openDelete = deleteDialog({
  onDeleted: (name) => {
    toast(`“${name}” is deleted.`);
    delete streams[name];
    show(streams);
    (ui.cards.querySelector('a') ?? ui.add).focus();
    poll.now();
  },
});

const viewers = viewersDialog({ onEnded: () => poll.now() });

// --- polling: only while seen, with growing pauses while the server is away

const poll = {
  timer: 0,
  failures: 0,
  running: false,
  again: false,
  async now() {
    clearTimeout(this.timer);
    if (this.running) {
      this.again = true; // what is on its way may be older than what was just changed
      return;
    }
    this.running = true;
    try {
      show(await listStreams());
      if (!ui.version.dataset.known || this.failures) showVersion();
      this.failures = 0;
      ui.banner.hidden = true;
    } catch (error) {
      this.failures += 1;
      showProblem(error);
    }
    this.running = false;
    const again = this.again;
    this.again = false;
    if (again) return this.now();
    if (!document.hidden) this.timer = setTimeout(() => this.now(), Math.min(LAST_POLL_MS, POLL_MS * 2 ** Math.min(this.failures, 8)));
  },
};

document.addEventListener('visibilitychange', () => {
  clearTimeout(poll.timer);
  if (!document.hidden) poll.now();
});
addEventListener('online', () => poll.now());

function showProblem(error) {
  const reached = error.status > 0;
  const words = reached ? [error.message, error.detail, error.hint].filter(Boolean).join('. ') : `${error.message}. Trying again…`;
  if (ui.banner.textContent !== words) ui.banner.textContent = words;
  ui.banner.hidden = false;
}

async function showVersion() {
  try {
    const { server } = await serverInfo();
    if (!server?.version) return;
    ui.version.textContent = `Streamgate ${server.version}${server.revision ? ` (${String(server.revision).slice(0, 12)})` : ''}`;
    ui.version.dataset.known = 'yes';
  } catch {
    // the footer goes without
  }
}

// --- the list

function show(next) {
  streams = next;
  const names = Object.keys(streams).sort(order);
  for (const [name, card] of cards) {
    if (Object.hasOwn(streams, name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  names.forEach((name, index) => {
    let card = cards.get(name);
    if (!card) {
      card = new StreamCard(name, {
        onDelete: (which) => openDelete(which, viewersOf(streams[which])),
        onViewers: (which) => viewers.open(which, streams[which]),
      });
      cards.set(name, card);
      ui.cards.insertBefore(card.element, ui.cards.children[index] ?? null);
    }
    card.update(streams[name]);
  });
  viewers.update(streams);
  ui.loading.hidden = true;
  ui.list.hidden = names.length === 0;
  ui.empty.hidden = names.length > 0;
  ui.filter.hidden = names.length < FILTER_FROM;
  showSummary(names);
  showHero(names);
  filter();
}

function showSummary(names) {
  const live = names.filter((name) => stateOf(streams[name]) === 'live').length;
  const viewers = names.reduce((sum, name) => sum + viewersOf(streams[name]), 0);
  const words = `${format.count(names.length, 'stream')} · ${live} live · ${format.count(viewers, 'viewer')}`;
  if (ui.summary.textContent !== words) ui.summary.textContent = words;
}

function filter() {
  const wanted = ui.filter.hidden ? '' : ui.filter.value.trim().toLowerCase().normalize('NFC');
  let shown = 0;
  for (const [name, card] of cards) {
    card.element.hidden = !name.toLowerCase().normalize('NFC').includes(wanted);
    if (!card.element.hidden) shown += 1;
  }
  ui.noMatch.hidden = shown > 0;
}
ui.filter.addEventListener('input', filter);

/** One stream alone plays at once, so that a newcomer sees a picture. More would start every camera. */
function showHero(names) {
  const only = names.length === 1 ? names[0] : null;
  const current = ui.heroPlayer.firstElementChild;
  if (current?.src === (only ?? undefined)) return;
  current?.remove();
  ui.hero.hidden = only === null;
  if (only === null) return;
  const player = document.createElement('stream-player');
  for (const [key, value] of Object.entries({ src: only, autoplay: '', muted: '', controls: '' })) player.setAttribute(key, value);
  ui.heroPlayer.append(player);
  heroSideFor(only);
}

function heroSideFor(name) {
  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const title = name === 'demo' ? 'This is the demo camera' : `“${name}” is the only camera so far`;
  const text = name === 'demo'
    ? 'It comes with Streamgate and takes the same path as a real camera: RTSP in, WebRTC out. Now add your own.'
    : 'It plays here while it is alone. Add the next one with the button, or in one of these ways:';
  const button = element('button', { type: 'button', className: 'primary', textContent: 'Add camera', onclick: () => openAdd() });
  ui.heroSide.replaceChildren(element('h2', { textContent: title }), element('p', { textContent: text }), button, teach());
}

function teach() {
  return find('teach-template').content.cloneNode(true);
}

// --- the rest

let toastTimer = 0;
function toast(text, link) {
  ui.toast.replaceChildren(Object.assign(document.createElement('span'), { textContent: text }));
  if (link) ui.toast.append(Object.assign(document.createElement('a'), { textContent: link.text, href: link.href }));
  ui.toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { ui.toast.hidden = true; }, TOAST_MS);
}

ui.add.addEventListener('click', () => openAdd());
ui.addFirst.addEventListener('click', () => openAdd());
ui.empty.append(teach());
poll.now();
