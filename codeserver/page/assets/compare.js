// What differs between two versions.
import { el } from './dom.js';
import { bytes, count, plural } from './format.js';
import { call, locationPath } from './api.js';

export const askChanges = (location, from, to) =>
  call('GET', locationPath(location, `compare?from=${encodeURIComponent(from)}&to=${encodeURIComponent(to)}`));

const MARKS = { added: ['+', 'added'], removed: ['−', 'removed'], changed: ['~', 'changed'] };

// summary says it in one line.
export function summary(c) {
  const parts = [];
  if (c.wheels.length) parts.push(plural(c.wheels.length, 'wheel'));
  for (const t of c.trees) {
    const n = t.files.length + t.more;
    parts.push(plural(n, 'file') + ' of ' + t.name);
  }
  if (c.settings.length) parts.push(plural(c.settings.length, 'setting'));
  return parts.length ? parts.join(', ') + (parts.length === 1 && /^1 /.test(parts[0]) ? ' differs' : ' differ') : 'nothing differs';
}

// changes shows it whole.
export function changes(c) {
  const all = el('div', { class: 'changes' });
  const part = (title, items, more) => all.append(el('div', {}, el('h3', {}, title), el('ul', {}, ...items),
    more ? el('p', { class: 'soft small' }, `and ${count(more)} more`) : null));
  if (c.wheels.length) part('Wheels', c.wheels.map(w => item(w.kind, wheel(w), sizes(w))));
  for (const t of c.trees) {
    part(t.name === 'source' ? 'Files of the source' : t.name === 'deps' ? 'Files of deps.pex' : 'Files of ' + t.name,
      t.files.map(f => item(f.kind, el('code', {}, f.path), sizes(f))), t.more);
  }
  if (c.settings.length) {
    part('Settings', c.settings.map(s => item(s.kind, [s.name + ': ', setting(s)], '')));
  }
  if (!all.firstChild) all.append(el('p', { class: 'empty' }, 'Nothing differs.'));
  return all;
}

function item(kind, what, size) {
  const [mark, word] = MARKS[kind];
  return el('li', { class: kind }, el('span', { class: 'mark', 'aria-hidden': 'true' }, mark),
    el('span', { class: 'what' }, el('span', { class: 'unseen' }, word + ' '), what), el('span', { class: 'size' }, size));
}

function wheel(w) {
  if (w.kind === 'added') return `${w.name} ${w.to}`;
  if (w.kind === 'removed') return `${w.name} ${w.from}`;
  return w.from === w.to ? `${w.name} ${w.to}, other bytes` : [w.name + ' ', w.from, ' → ', el('strong', {}, w.to)];
}

function setting(s) {
  if (s.kind === 'added') return el('code', {}, s.after);
  if (s.kind === 'removed') return ['was ', el('code', {}, s.before)];
  return [el('code', {}, s.before), ' → ', el('code', {}, s.after)];
}

function sizes(f) {
  if (f.kind === 'added') return bytes(f.after);
  if (f.kind === 'removed') return bytes(f.before);
  if (f.before === f.after) return bytes(f.after);
  const d = f.after - f.before;
  return `${bytes(f.after)} (${d > 0 ? '+' : '−'}${bytes(Math.abs(d))})`;
}
