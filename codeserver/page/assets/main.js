// The page: who looks, what is shown, and keeping it as it is on the codeserver.
import { el, morph } from './dom.js';
import { call, events, setKey, Refused } from './api.js';
import { overview } from './overview.js';
import { LocationPage } from './location.js';
import { signInForm } from './signin.js';
import { askRollback } from './rollback.js';
import { news } from './state.js';
import { ago } from './format.js';

const at = id => document.getElementById(id);
const main = at('main');
let session = null, state = null, stream = null, page = null, received = 0;

const say = text => { at('said').textContent = text; };

function route() {
  const m = /^#\/location\/(.+)$/.exec(location.hash);
  try { return m ? decodeURIComponent(m[1]) : ''; } catch { return ''; }
}

function show() {
  if (!state) return;
  const name = route();
  if (page && page.name !== name) { page.close(); page = null; main.replaceChildren(); }
  if (name) {
    if (!page) { main.replaceChildren(); page = new LocationPage(name, main, say); }
    page.show(state);
  } else {
    morph(main, overview(state));
  }
  document.title = (name ? name + ' · ' : '') + 'codeserver' + (session.host ? ' · ' + session.host : '');
}

function showWho() {
  const who = at('who');
  who.replaceChildren();
  at('host').textContent = session.host || '';
  if (!session.sign_in) return;
  who.append(el('span', {}, session.who === 'anonymous' ? 'not signed in' : session.who));
  if (session.signed_in) who.append(el('button', { class: 'plain', 'data-do': 'sign-out' }, 'Sign out'));
  else who.append(el('button', { class: 'plain', 'data-do': 'sign-in' }, 'Sign in'));
}

function askToken(says) {
  stop();
  if (page) { page.close(); page = null; }
  at('live').textContent = '';
  state = null;
  document.title = 'Sign in · codeserver';
  main.replaceChildren(signInForm(says, async token => {
    session = await call('POST', 'api/session', { token });
    setKey(session.key);
    main.replaceChildren();
    showWho();
    follow();
  }));
  main.querySelector('input').focus();
}

async function begin() {
  stop();
  try {
    session = await call('GET', 'api/session');
    if (session.key) setKey(session.key);
    showWho();
    follow();
  } catch (e) {
    if (e instanceof Refused && e.status === 401) {
      session = { sign_in: true };
      setKey('');
      at('who').replaceChildren();
      askToken('');
      return;
    }
    lost(e);
    setTimeout(begin, 1500);
  }
}

// follow keeps the state until stop. When the stream ends all begins anew: another codeserver has other keys.
async function follow() {
  stop();
  const mine = stream = new AbortController();
  try {
    await events('GET', 'api/events', null, mine.signal, (kind, data) => {
      if (kind !== 'state' || mine.signal.aborted) return;
      const told = news(state, data);
      state = data;
      received = Date.now();
      at('live').className = 'live';
      at('live').textContent = 'live';
      if (told) say(told);
      show();
    });
  } catch (e) {
    if (!mine.signal.aborted) lost(e);
  }
  if (mine.signal.aborted) return;
  await new Promise(done => setTimeout(done, 1000));
  if (!mine.signal.aborted) begin();
}

function stop() {
  if (stream) stream.abort();
  stream = null;
}

function lost(e) {
  const live = at('live');
  live.className = 'live stale';
  live.textContent = e instanceof Refused ? e.message :
    'no answer from the codeserver' + (received ? '; what is below is from ' + ago(received, Date.now()) : '');
}

async function act(button) {
  switch (button.dataset.do) {
    case 'sign-in':
      askToken('');
      break;
    case 'sign-out':
      stop();
      try { await call('DELETE', 'api/session'); } catch { /* it is over either way */ }
      setKey('');
      state = null;
      main.replaceChildren();
      begin();
      break;
    case 'rollback': {
      const l = state.locations.find(l => l.name === button.dataset.location);
      if (l) askRollback(at('dialog'), l, button.dataset.version, say);
      break;
    }
    default:
      if (page) page.act(button);
  }
}

document.addEventListener('click', e => {
  const button = e.target.closest('button[data-do]');
  if (button) act(button);
});
document.addEventListener('change', e => { if (page) page.changed(e.target); });
window.addEventListener('hashchange', () => {
  show();
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
});
// A page that nobody sees leaves its connection to others: a browser has few for each server.
document.addEventListener('visibilitychange', () => {
  if (!session || !state) return;
  if (document.hidden) { stop(); if (page) page.sleep(); } else { begin(); if (page) page.wake(); }
});
begin();
