// The dialog with a stream's viewers: who they are, what they got, and a button that ends one.

import { endViewer } from './api.js';
import { explain } from './dialogs.js';
import * as format from './format.js';

const WAYS = { webrtc: 'WebRTC', 'mse/fmp4': 'MSE', hls: 'HLS', mp4: 'MP4', mjpeg: 'MJPEG', jpeg: 'Picture', rtsp: 'RTSP' };
/** What keeps a camera running without a viewer. */
const PRELOAD = 'preload';

/** @param {{onEnded: () => void}} page */
export function viewersDialog({ onEnded }) {
  const find = (id) => document.getElementById(id);
  const dialog = find('viewers-dialog');
  const problem = dialog.querySelector('.form-error');
  const rows = new Map();
  let current = '';

  dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close());

  const show = (stream) => {
    const viewers = (Array.isArray(stream?.consumers) ? stream.consumers : []).filter((one) => one.format_name !== PRELOAD);
    const ids = new Set(viewers.map((viewer) => viewer.id));
    for (const [id, row] of rows) {
      if (ids.has(id)) continue;
      if (row.contains(document.activeElement)) dialog.querySelector('[data-close]').focus();
      row.remove();
      rows.delete(id);
    }
    for (const viewer of viewers) {
      if (!rows.has(viewer.id)) rows.set(viewer.id, addRow(viewer.id));
      fill(rows.get(viewer.id), viewer);
    }
    find('no-viewers').hidden = viewers.length > 0;
  };

  const addRow = (id) => {
    const row = find('viewer-template').content.firstElementChild.cloneNode(true);
    const button = row.querySelector('button');
    button.addEventListener('click', async () => {
      button.disabled = true;
      problem.hidden = true;
      try {
        await endViewer(current, id);
        onEnded();
      } catch (error) {
        button.disabled = false;
        if (error.status === 404) onEnded(); // it has gone by itself
        else explain(problem, error);
      }
    });
    find('viewers').append(row);
    return row;
  };

  return {
    open(name, stream) {
      current = name;
      problem.hidden = true;
      find('viewers-title').textContent = `Viewers of “${name}”`;
      show({});
      show(stream);
      dialog.showModal();
    },
    /** Called with each look at the streams. */
    update(streams) {
      if (dialog.open) show(streams[current]);
    },
  };
}

/** Everything from the server goes in as text. */
function fill(row, viewer) {
  const [way, who, what, button] = row.children;
  const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const name = viewer.url ? 'Publishing' : WAYS[viewer.format_name] ?? viewer.format_name ?? '';
  set(way, [name, viewer.protocol?.toUpperCase()].filter(Boolean).join(' · '));
  set(who, [viewer.url ?? viewer.remote_addr, viewer.last_error].filter(Boolean).join(': '));
  who.title = viewer.user_agent ?? '';
  const codecs = (viewer.senders ?? []).map((sender) => format.codec(sender?.codec?.codec_name)).filter(Boolean).join(' + ');
  set(what, [codecs, `${format.bytes(viewer.bytes_send)} sent`, `for ${format.duration(viewer.age)}`].filter(Boolean).join(' · '));
  button.setAttribute('aria-label', `Disconnect ${way.textContent} ${viewer.remote_addr ?? ''}`.trim());
}
