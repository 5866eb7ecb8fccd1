// The full-window player page: /stream/player/{name}[?muted=0|1][&controls=0][&media=video|audio][&mode=webrtc,hls]

import './stream-player.js';

function streamName() {
  const marker = '/stream/player/';
  const encoded = location.pathname.slice(location.pathname.indexOf(marker) + marker.length).replace(/\/$/, '');
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded; // a stray % in a hand-typed address
  }
}

const name = streamName();
const query = new URLSearchParams(location.search);
const controls = query.get('controls') !== '0';
document.title = `${name} · Streamgate`;

const player = document.createElement('stream-player');
player.setAttribute('src', name);
player.setAttribute('autoplay', '');
if (controls) player.setAttribute('controls', '');
if (query.has('muted')) player.setAttribute('muted', query.get('muted') === '0' ? 'false' : 'true');
for (const name of ['media', 'mode']) if (query.has(name)) player.setAttribute(name, query.get(name));
if (controls) {
  const top = document.getElementById('top').content.cloneNode(true);
  top.querySelector('h1').textContent = name;
  player.append(top);
}
document.body.append(player);
addEventListener('keydown', (event) => player.handleKey(event));
