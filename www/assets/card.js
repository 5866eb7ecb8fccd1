// One stream's card in the list. Updated in place; everything from the server goes in as text.

import * as format from './format.js';
import { Thumbnail } from './thumbnail.js';

const STATES = { idle: 'Idle', connecting: 'Connecting', live: 'Live', retrying: 'Retrying' };

export function playerUrl(name) {
  return `/stream/player/${encodeURIComponent(name)}`;
}

export class StreamCard {
  /** @param {string} name @param {{onDelete: (name: string) => void, onViewers: (name: string) => void}} on */
  constructor(name, { onDelete, onViewers }) {
    this.name = name;
    const template = document.getElementById('card-template');
    this.element = template.content.firstElementChild.cloneNode(true);
    const find = (selector) => this.element.querySelector(selector);
    this.parts = {
      state: find('.state'), word: find('.state span'), source: find('.source'), note: find('.note'), facts: find('dl'), viewers: find('.viewers'),
      codec: find('[data-field=codec]'), size: find('[data-field=size]'), fps: find('[data-field=fps]'), bitrate: find('[data-field=bitrate]'),
    };
    this.thumbnail = new Thumbnail(find('.thumbnail'), name);
    const link = find('h2 a');
    link.textContent = name;
    link.title = name;
    link.href = playerUrl(name);
    const remove = find('.delete');
    remove.setAttribute('aria-label', `Delete ${name}`);
    remove.addEventListener('click', () => onDelete(name));
    this.parts.viewers.addEventListener('click', () => onViewers(name));
  }

  /** @param {object} stream the entry of GET /api/streams; any field may be missing */
  update(stream) {
    const { parts } = this;
    const producers = list(stream?.producers);
    const state = stateOf(stream);
    if (this.element.dataset.state !== state) this.element.dataset.state = state;
    set(parts.word, STATES[state]);
    this.thumbnail.update(state === 'live' && Boolean(stream?.video_codec));
    const age = state === 'live' || state === 'retrying' ? format.since(stream.since) : '';
    parts.state.title = age && `${STATES[state]} for ${age}`;

    const urls = producers.map((producer) => producer?.url).filter((url) => typeof url === 'string' && url);
    set(parts.source, urls.length > 1 ? `${urls[0]}  + ${urls.length - 1} more` : urls[0] ?? '');
    parts.source.title = urls.join('\n');
    set(parts.codec, codecs(stream, producers));
    set(parts.size, format.size(stream?.width, stream?.height));
    set(parts.fps, format.frameRate(stream?.fps));
    set(parts.bitrate, state === 'live' ? format.bitrate(stream.bitrate ?? NaN) : '–');
    parts.facts.hidden = ['codec', 'size', 'fps', 'bitrate'].every((key) => parts[key].textContent === '–');
    set(parts.viewers.lastElementChild, format.count(viewersOf(stream), 'viewer'));
    parts.viewers.disabled = viewersOf(stream) === 0;

    const error = state === 'live' ? '' : stream?.last_error ?? producers.find((producer) => producer?.last_error)?.last_error ?? '';
    const retries = stream?.retries > 0 ? ` (${format.count(stream.retries, 'retry', 'retries')})` : '';
    const note = error ? error + (state === 'retrying' ? retries : '') : state === 'idle' && stream?.on_demand !== false ? 'Starts when someone watches.' : '';
    set(parts.note, note);
    parts.note.hidden = !note;
    parts.note.classList.toggle('bad', Boolean(error));
  }
}

export function stateOf(stream) {
  if (Object.hasOwn(STATES, stream?.state)) return stream.state;
  return list(stream?.producers).some((producer) => producer?.receivers?.length) ? 'live' : 'idle';
}

export function viewersOf(stream) {
  return Number.isInteger(stream?.viewers) ? stream.viewers : list(stream?.consumers).length;
}

function codecs(stream, producers) {
  const receivers = producers.flatMap((producer) => list(producer?.receivers));
  const medias = producers.flatMap((producer) => list(producer?.medias)).filter((media) => typeof media === 'string');
  const find = (kind) =>
    receivers.find((receiver) => receiver?.codec?.codec_type === kind)?.codec?.codec_name ??
    medias.find((media) => media.startsWith(`${kind},`))?.split(',')[2]?.trim().split('/')[0];
  const video = format.codec(stream?.video_codec ?? find('video'));
  const audio = format.codec(stream?.audio_codec ?? find('audio'));
  return [video, audio].filter(Boolean).join(' + ') || '–';
}

function list(value) {
  return Array.isArray(value) ? value : [];
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
