// The dialogs that add and delete a stream.

import { deleteStream, putStream } from './api.js';

const EXAMPLES = [
  ['Hikvision', 'rtsp://USER:PASSWORD@ADDRESS:554/Streaming/Channels/101', '102 is the small picture'],
  ['Dahua, Amcrest', 'rtsp://USER:PASSWORD@ADDRESS:554/cam/realmonitor?channel=1&subtype=0', 'subtype=1 is the small picture'],
  ['Reolink', 'rtsp://USER:PASSWORD@ADDRESS:554/h264Preview_01_main', '_sub is the small picture; turn RTSP on in its settings'],
  ['TP-Link Tapo', 'rtsp://USER:PASSWORD@ADDRESS:554/stream1', 'with the “camera account” of the Tapo app; stream2 is small'],
  ['Axis', 'rtsp://USER:PASSWORD@ADDRESS/axis-media/media.amp?videocodec=h264', ''],
  ['Any other', 'rtsp://USER:PASSWORD@ADDRESS:554/', 'the path is in the camera’s manual, or in what ONVIF tools report'],
];
const MAX_SOURCES = 8;

/** @param {{exists: (name: string) => boolean, onAdded: (name: string) => void}} page */
export function addDialog({ exists, onAdded }) {
  const dialog = document.getElementById('add-dialog');
  const form = dialog.querySelector('form');
  const sources = dialog.querySelector('#sources');
  const more = dialog.querySelector('#more-sources');
  const note = dialog.querySelector('#name-note');
  const noteText = note.textContent;
  const submit = form.querySelector('[type=submit]');
  const inputs = () => [...sources.querySelectorAll('input')];

  const checkName = () => {
    const name = form.elements.name.value.trim();
    const bad = /[\u0000-\u001f\u007f/?#]/.test(name);
    form.elements.name.setCustomValidity(bad ? 'A name has no / ? # and no control characters.' : '');
    const replaces = !bad && exists(name);
    note.textContent = bad ? 'A name cannot contain / ? #' : replaces ? 'A stream of this name exists: its sources will be replaced.' : noteText;
    note.classList.toggle('warn', bad || replaces);
    submit.textContent = replaces ? 'Replace' : 'Add camera';
  };
  form.elements.name.addEventListener('input', checkName);

  more.addEventListener('click', () => {
    const input = inputs()[0].cloneNode();
    Object.assign(input, { id: `source-${inputs().length}`, value: '', required: false, placeholder: 'rtsp://… the small picture, or another codec' });
    input.setAttribute('aria-label', `Source address ${inputs().length + 1}`);
    sources.append(input);
    more.hidden = inputs().length >= MAX_SOURCES;
    input.focus();
  });

  const examples = dialog.querySelector('#examples');
  for (const [make, url, remark] of EXAMPLES) {
    const item = document.createElement('li');
    const use = Object.assign(document.createElement('button'), { type: 'button', textContent: make });
    use.setAttribute('aria-label', `Use the address of ${make}`);
    use.addEventListener('click', () => {
      const input = inputs().find((each) => !each.value.trim()) ?? inputs()[0];
      input.value = url;
      input.focus();
      const start = url.indexOf('USER:PASSWORD@ADDRESS');
      input.setSelectionRange(start, start + 'USER:PASSWORD@ADDRESS'.length);
      input.scrollLeft = 0;
    });
    const code = Object.assign(document.createElement('code'), { textContent: url });
    item.append(use, code);
    if (remark) item.append(Object.assign(document.createElement('small'), { textContent: remark }));
    examples.append(item);
  }

  return behave(dialog, {
    opened() {
      form.reset();
      inputs().slice(1).forEach((input) => input.remove());
      more.hidden = false;
      dialog.querySelector('details').open = false;
      checkName();
    },
    async submit() {
      const name = form.elements.name.value.trim();
      const urls = inputs().map((input) => input.value.trim()).filter(Boolean);
      await putStream(name, urls);
      return () => onAdded(name);
    },
  });
}

/** @param {{onDeleted: (name: string) => void}} page */
export function deleteDialog({ onDeleted }) {
  const dialog = document.getElementById('delete-dialog');
  let current = '';
  return behave(dialog, {
    opened(name, viewers) {
      current = name;
      dialog.querySelector('#delete-title').textContent = `Delete “${name}”?`;
      const watching = viewers > 0 ? ` ${viewers === 1 ? 'One viewer is' : `${viewers} viewers are`} watching now.` : '';
      dialog.querySelector('#delete-text').textContent = `Its viewers are disconnected and its camera is let go.${watching}`;
    },
    async submit() {
      const name = current;
      await deleteStream(name);
      return () => onDeleted(name);
    },
  });
}

/** What both dialogs have in common: open, close, send once, show the error. Returns the function that opens it. */
function behave(dialog, { opened, submit }) {
  const form = dialog.querySelector('form');
  const problem = dialog.querySelector('.form-error');
  const send = form.querySelector('[type=submit]');
  let round = 0;
  for (const button of dialog.querySelectorAll('[data-close]')) button.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => { round += 1; });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const mine = round;
    problem.hidden = true;
    send.disabled = true;
    try {
      const done = await submit();
      if (mine === round) dialog.close(); // first: nothing behind an open dialog takes the focus
      done();
    } catch (error) {
      if (mine === round) explain(problem, error);
    } finally {
      if (mine === round) send.disabled = false;
    }
  });
  return (...details) => {
    problem.hidden = true;
    send.disabled = false;
    opened(...details);
    dialog.showModal();
  };
}

/** Shows in words what went wrong. */
export function explain(box, error) {
  const line = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  const what = error.detail ? `${error.message}: ${error.detail}` : error.message;
  const lines = [line('strong', what)];
  if (error.hint) lines.push(line('p', error.hint));
  if (error.status === 403) {
    lines.push(line('p', 'Watching is open to everyone; changes are made from the machine that Streamgate runs on, at http://localhost with its port, or in its configuration file.'));
  }
  box.replaceChildren(...lines);
  box.hidden = false;
  box.scrollIntoView({ block: 'nearest' });
}
