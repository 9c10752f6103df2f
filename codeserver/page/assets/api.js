// Talking to the codeserver.

// The key goes with each request; it is kept for this origin alone, and is half of a session (the other is a cookie).
const KEY = 'pexpress-page-key';
let key = localStorage.getItem(KEY) || '';

export function setKey(k) {
  key = k;
  if (k) localStorage.setItem(KEY, k);
  else localStorage.removeItem(KEY);
}

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(method, path, body, signal) {
  const headers = { 'X-Pexpress-Key': key };
  if (body) headers['Content-Type'] = 'application/json';
  const r = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), credentials: 'same-origin', cache: 'no-store', redirect: 'error' });
  if (r.ok) return r;
  let says = r.statusText || 'the codeserver answered ' + r.status;
  try { says = (await r.json()).error || says; } catch { /* not ours */ }
  throw new Refused(r.status, says);
}

export async function call(method, path, body) {
  const r = await ask(method, path, body);
  return r.status === 204 ? null : r.json();
}

// events calls a function with each server-sent event. It ends when the server does. EventSource cannot send headers.
export async function events(method, path, body, signal, each) {
  const r = await ask(method, path, body, signal);
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const m = /^event: (.*)\ndata: (.*)$/.exec(part);
      if (m) each(m[1], JSON.parse(m[2]));
    }
  }
}

export const locationPath = (name, what) => `api/locations/${encodeURIComponent(name)}/${what}`;
