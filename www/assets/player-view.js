// What <stream-player> looks like: its shadow tree and its styles. No behaviour.

const icon = (paths) =>
  `<svg viewBox="0 0 24 24" width="24" height="24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${paths}</svg>`;

export const ICONS = {
  play: icon('<path d="M8 5.6v12.8L18.5 12z" fill="currentColor"/>'),
  pause: icon('<path d="M8.5 6v12M15.5 6v12" stroke-width="3"/>'),
  sound: icon('<path d="M4.5 9.5v5h3.2L12 18.2V5.8L7.7 9.5z" fill="currentColor"/><path d="M15.4 9.2a4 4 0 0 1 0 5.6M17.9 6.7a7.5 7.5 0 0 1 0 10.6"/>'),
  muted: icon('<path d="M4.5 9.5v5h3.2L12 18.2V5.8L7.7 9.5z" fill="currentColor"/><path d="m15.8 9.7 4.6 4.6M20.4 9.7l-4.6 4.6"/>'),
  stats: icon('<path d="M5 19v-5M10 19V8.5M15 19v-8M20 19V5"/>'),
  snapshot: icon('<path d="M4.2 8.2h3.6l1.5-2.4h5.4l1.5 2.4h3.6v10.3H4.2z"/><circle cx="12" cy="13" r="3.1"/>'),
  pip: icon('<path d="M20 10.5V6H4v12h6.5"/><path d="M13 13h7.5v5.5H13z" fill="currentColor"/>'),
  full: icon('<path d="M4.5 9V4.5H9M15 4.5h4.5V9M19.5 15v4.5H15M9 19.5H4.5V15"/>'),
  unfull: icon('<path d="M9 4.5V9H4.5M19.5 9H15V4.5M15 19.5V15h4.5M4.5 15H9v4.5"/>'),
  audio: icon('<path d="M4 12h1M8 8.5v7M12 5.5v13M16 8.5v7M20 12h-1" stroke-width="2.2"/>'),
};

const button = (id, label, picture, keys = '') =>
  `<button type="button" id="${id}" aria-label="${label}" title="${label}${keys && ` (${keys})`}"${keys && ` aria-keyshortcuts="${keys}"`}>${picture}</button>`;

const HTML = `
<div id="stage" part="stage" tabindex="-1">
  <video id="video" part="video" playsinline disableremoteplayback></video>
  <canvas id="still" aria-hidden="true" hidden></canvas>
  <div id="sound-only" hidden>${ICONS.audio}<span>Sound only</span></div>
  <div id="top"><slot name="top"></slot></div>
  <div id="spinner" hidden><i></i><span>Waiting for the camera…</span></div>
  <div id="badge" role="status" hidden><i></i><span></span></div>
  <button type="button" id="big-play" aria-label="Play" hidden>${ICONS.play}</button>
  <button type="button" id="unmute" hidden>${ICONS.muted}<span>Turn sound on</span></button>
  <div id="panel" role="status" hidden>
    <div>
      <h2></h2><p id="detail"></p><p id="hint"></p><p id="why"></p>
      <p id="countdown" aria-live="off"></p>
      <div id="actions"><button type="button" id="retry">Try now</button><slot name="actions"></slot></div>
    </div>
  </div>
  <dl id="stats" aria-label="Statistics" hidden></dl>
  <div id="bar" role="group" aria-label="Player controls" hidden>
    ${button('play', 'Play', ICONS.play, 'k')}
    ${button('mute', 'Mute', ICONS.sound, 'm')}
    <input id="volume" type="range" min="0" max="1" step="0.05" aria-label="Volume">
    <span id="live"><i></i><span>Live</span></span>
    <span id="mode" hidden></span>
    <span id="gap"></span>
    ${button('show-stats', 'Statistics', ICONS.stats, 'i')}
    ${button('snapshot', 'Save a picture', ICONS.snapshot)}
    ${button('pip', 'Picture in picture', ICONS.pip)}
    ${button('full', 'Full screen', ICONS.full, 'f')}
  </div>
</div>`;

const CSS = `
:host { display: block; position: relative; aspect-ratio: 16 / 9; min-width: 0; overflow: hidden; background: #000; color: #fff;
  font: 400 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic", sans-serif;
  -webkit-tap-highlight-color: transparent; }
:host([hidden]) { display: none; }
[hidden] { display: none !important; }
* { box-sizing: border-box; }
#stage { position: absolute; inset: 0; container-type: size; outline: none; }
#stage.idle { cursor: none; }
video, canvas { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; display: block; }
canvas { pointer-events: none; }
svg { display: block; flex: none; }
button { font: inherit; color: inherit; background: none; border: 0; margin: 0; padding: 0; cursor: pointer; }
button:focus-visible, input:focus-visible, #stage:focus-visible { outline: 2px solid #fff; outline-offset: -3px; border-radius: 10px; box-shadow: inset 0 0 0 5px #0008; }

#top { position: absolute; inset: 0 0 auto; min-height: 56px; padding: 6px 12px 28px; pointer-events: none;
  padding-left: max(12px, env(safe-area-inset-left)); padding-top: max(6px, env(safe-area-inset-top));
  background: linear-gradient(#000b, #0000); transition: opacity .2s; }
#top:not(.filled) { background: none; }
::slotted([slot=top]) { pointer-events: auto; }
#top, #bar { z-index: 1; }
#bar { position: absolute; inset: auto 0 0; display: flex; align-items: center; gap: 2px; padding: 30px 8px 6px;
  padding-bottom: max(6px, env(safe-area-inset-bottom)); background: linear-gradient(#0000, #000c); transition: opacity .2s; }
#bar button { width: 44px; height: 44px; display: grid; place-items: center; border-radius: 10px; opacity: .92; }
#bar button:hover { background: #fff2; opacity: 1; }
#bar button[aria-pressed=true] { background: #fff3; }
#gap { flex: 1; }
.idle #bar, .idle #top { opacity: 0; pointer-events: none; }
.idle #bar:focus-within, .idle #top:focus-within { opacity: 1; pointer-events: auto; }
#volume { width: 84px; height: 44px; margin: 0 6px 0 0; accent-color: #fff; cursor: pointer; display: none; }
@media (hover: hover) { @container (min-width: 520px) { #volume { display: block; } } }
#live { display: flex; align-items: center; gap: 7px; padding: 0 8px; font-size: 13px; font-weight: 600; letter-spacing: .02em; }
#live i { width: 8px; height: 8px; border-radius: 50%; background: #8b8f98; }
.playing #live i { background: #ff4d4f; }
.connecting #live i, .waiting #live i, .error #live i { background: #f5b731; }
#mode { padding: 2px 8px; border-radius: 99px; background: #fff2; font-size: 12px; font-weight: 600; letter-spacing: .02em; white-space: nowrap; cursor: default; }
#mode.second { background: #f5b73133; color: #ffd67d; }
@container (max-width: 399px) { #mode { display: none; } }
@container (max-width: 345px) { #snapshot { display: none !important; } }
@container (max-width: 299px) { #live { display: none; } }

#spinner { position: absolute; inset: 0; display: grid; place-content: center; justify-items: center; pointer-events: none; animation: appear .3s .25s backwards; }
#spinner i { width: 44px; height: 44px; border-radius: 50%; border: 3px solid #fff3; border-top-color: #fff; animation: turn 1s linear infinite; }
#spinner span { margin: 14px 0 -36px; font-size: 14px; text-shadow: 0 0 4px #000; animation: appear .3s 3s backwards; }
#badge { position: absolute; left: 50%; top: max(16px, env(safe-area-inset-top)); transform: translateX(-50%); display: flex; align-items: center; gap: 9px;
  width: max-content; max-width: calc(100% - 32px); padding: 8px 15px; border-radius: 99px; background: #14161ad9; font-size: 14px; font-weight: 500; animation: appear .3s; }
#top.filled ~ #badge { top: calc(60px + env(safe-area-inset-top)); }
#badge i { flex: none; width: 9px; height: 9px; border-radius: 50%; background: #f5b731; animation: pulse 1.4s ease-in-out infinite; }
#big-play { position: absolute; inset: 0; margin: auto; width: 76px; height: 76px; display: grid; place-items: center; border-radius: 50%;
  background: #14161ab3; border: 1px solid #fff3; transition: transform .15s, background .15s; }
#big-play:hover { background: #14161ae6; transform: scale(1.05); }
#big-play:focus-visible { border-radius: 50%; }
#big-play svg { width: 36px; height: 36px; }
#unmute { position: absolute; z-index: 2; right: 14px; bottom: 68px; display: flex; align-items: center; gap: 8px; min-height: 44px; padding: 0 16px 0 12px;
  border-radius: 99px; background: #fff; color: #14161a; font-weight: 600; font-size: 14px; animation: appear .3s; }
#unmute:focus-visible { outline-offset: 3px; border-radius: 99px; }
#sound-only { position: absolute; inset: 0; display: grid; place-content: center; justify-items: center; gap: 8px; color: #c6cad3; }
#sound-only svg { width: 56px; height: 56px; }

#panel { position: absolute; inset: 0; overflow: auto; background: #0a0b0dc7; display: grid; padding: 20px; animation: appear .25s; }
#panel > div { margin: auto; width: min(100%, 34rem); text-align: center; padding-block: 36px 44px; }
#panel h2 { margin: 0; font-size: clamp(17px, 3.2cqi, 21px); line-height: 1.3; font-weight: 650; text-wrap: balance; overflow-wrap: anywhere; }
#panel p { margin: 8px 0 0; overflow-wrap: anywhere; text-wrap: pretty; }
#panel p:empty { display: none; }
#panel #detail { color: #d6d9e0; white-space: pre-line; }
#hint, #why { color: #aeb4c0; }
#panel #why { font-size: 13px; }
#panel #countdown { margin-top: 14px; font-size: 13px; color: #aeb4c0; font-variant-numeric: tabular-nums; }
#actions { display: flex; flex-wrap: wrap; justify-content: center; gap: 10px; margin-top: 12px; }
#retry, ::slotted([slot=actions]) { display: inline-flex; align-items: center; min-height: 44px; padding: 0 20px !important; border-radius: 99px; font-weight: 600 !important;
  font-size: 14px !important; text-decoration: none !important; color: #fff !important; background: #fff2; border: 1px solid #fff4; cursor: pointer; }
#retry { background: #fff; color: #14161a !important; border-color: #fff; }
#retry:hover { background: #e4e7ee; }
#retry:focus-visible { outline-offset: 3px; border-radius: 99px; }
@container (max-height: 300px) {
  .failed #bar { display: none; }
  #panel { padding: 10px 16px; } #panel > div { padding-block: 6px; }
  #panel p { font-size: 13px; margin-top: 4px; } #panel h2 { font-size: 16px; }
  #panel #countdown { margin-top: 6px; } #actions { margin-top: 8px; }
}

#stats { position: absolute; left: 12px; top: 12px; margin: 0; max-width: calc(100% - 24px); max-height: calc(100% - 80px); overflow: auto; display: grid;
  grid-template-columns: auto auto; gap: 2px 16px; padding: 12px 16px; border-radius: 12px; background: #0f1115e0; border: 1px solid #ffffff1f;
  font-size: 13px; line-height: 1.5; font-variant-numeric: tabular-nums; animation: appear .2s; }
#top.filled ~ #stats { top: calc(60px + env(safe-area-inset-top)); max-height: calc(100% - 130px); }
#stats dt { color: #aeb4c0; } #stats dd { margin: 0; font-weight: 500; white-space: nowrap; }
#stats dd.words { white-space: normal; max-width: 34em; overflow-wrap: anywhere; }
@container (max-height: 330px) { #stats { font-size: 11.5px; line-height: 1.35; padding: 8px 12px; gap: 0 12px; max-height: calc(100% - 68px); }
  #stats.wide { grid-template-columns: auto auto auto auto; } }

@keyframes turn { to { transform: rotate(1turn); } }
@keyframes pulse { 50% { opacity: .35; } }
@keyframes appear { from { opacity: 0; } }
@media (prefers-reduced-motion: reduce) {
  *, ::before, ::after { transition: none !important; animation-duration: 0s !important; animation-delay: 0s !important; }
  #spinner i { animation: turn 3s steps(8) infinite !important; }
  #spinner span { animation-duration: .01s !important; animation-delay: 3s !important; }
}
`;

let sheet = null;

/** Fills the shadow root; returns its elements with an id, by id in camelCase. */
export function buildView(root) {
  const template = document.createElement('template');
  template.innerHTML = HTML; // a constant: no data ever goes through here
  root.append(template.content);
  try {
    sheet ??= new CSSStyleSheet();
    if (!sheet.cssRules.length) sheet.replaceSync(CSS);
    root.adoptedStyleSheets = [sheet];
  } catch {
    const style = document.createElement('style'); // Safari before 16.4
    style.textContent = CSS;
    root.append(style);
  }
  const parts = {};
  for (const element of root.querySelectorAll('[id]')) {
    parts[element.id.replace(/-(\w)/g, (_, letter) => letter.toUpperCase())] = element;
  }
  return parts;
}
