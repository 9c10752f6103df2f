// All locations.
import { el } from './dom.js';
import { ago, bytes, count, date, percent, plural, rate, short, took } from './format.js';
import { badge, currentOf, starting, stateOf } from './state.js';

export function overview(state) {
  const all = el('div', { class: 'stack' });
  if (!state.locations.length) {
    all.append(el('section', { class: 'card page-empty' },
      el('h1', {}, 'Nothing is served here yet'),
      el('p', { class: 'empty' }, 'In a project with a ', el('code', {}, 'pylock.toml'), ', run ', el('code', {}, 'pexpress deploy'),
        '. Its locations appear here as soon as the deploy begins.')));
    return el('div', {}, all);
  }
  const now = new Date(state.now);
  const heads = ['Location', 'Serves', 'Memory', 'Processor', 'Requests', 'Latency', 'Isolation'];
  all.append(overall(state), el('section', { class: 'card' },
    el('table', { class: 'locations' },
      el('thead', {}, el('tr', {}, heads.map(h => el('th', { scope: 'col' }, h)))),
      el('tbody', {}, state.locations.map(l => row(l, now))))));
  return el('div', {}, all);
}

// overall is the host in one line.
function overall(state) {
  const serving = state.locations.filter(l => stateOf(l)[0] === 'ok').length, n = state.locations.length;
  const sum = value => state.locations.reduce((s, l) => s + (l.last ? value(l.last) : 0), 0);
  return el('div', { class: 'overall' }, el('h1', {}, plural(n, 'location')),
    el('span', { class: 'soft' }, serving === n ? (n === 1 ? 'serving' : 'all serving') : `${serving} serving`),
    el('span', { class: 'soft' }, bytes(sum(p => p.memory)) + ' of memory'),
    el('span', { class: 'soft' }, percent(sum(p => p.cpu)) + ' of a processor'),
    el('span', { class: 'soft' }, rate(sum(p => p.rps)).replace('/', ' requests/')));
}

const cell = (head, ...content) => el('td', { 'data-head': head }, el('div', {}, ...content));

function row(l, now) {
  const v = currentOf(l), next = starting(l), chips = [];
  if (next && v) chips.push(el('span', { class: 'chip warn' }, 'deploying ' + short(next.name)));
  if (l.canary) chips.push(el('span', { class: 'chip warn' }, `canary ${short(l.canary)}, ${l.canary_percent} %`));
  if (l.failure) chips.push(el('span', { class: 'chip bad' }, 'last deploy failed'));
  if (l.channel) chips.push(el('span', { class: l.channel_error ? 'chip bad' : 'chip', title: l.channel_error || null }, 'channel ' + l.channel));
  const u = v ? v.usage : null;
  return el('tr', { 'data-key': l.name },
    el('th', { scope: 'row' },
      el('a', { class: 'name', href: '#/location/' + encodeURIComponent(l.name) }, l.name === '*' ? 'all of channel ' + l.channel : l.name),
      el('div', { class: 'mono soft' }, l.address || 'no address yet'),
      el('div', { class: 'chips' }, badge(stateOf(l)), ...chips)),
    v ? cell('Serves', el('code', { title: v.name }, short(v.name)),
      el('small', { title: date(new Date(v.deployed)) }, ago(new Date(v.deployed), now))) : cell('Serves', '–'),
    u ? memory(v) : cell('Memory', '–'),
    u ? processor(l, v) : cell('Processor', '–'),
    u ? requests(l, u) : cell('Requests', '–'),
    u ? latency(u) : cell('Latency', '–'),
    el('td', { 'data-head': 'Isolation', class: 'small soft' },
      el('div', { class: 'isolation' }, v && v.isolation.length ? v.isolation.map(i => el('div', {}, i)) : 'none')));
}

function meter(share, kind) {
  return el('span', { class: 'meter ' + kind, 'aria-hidden': 'true' }, el('i', { style: { width: Math.min(100, 100 * share) + '%' } }));
}

function memory(v) {
  const u = v.usage, limit = v.limits.memory;
  return cell('Memory', el('span', { class: 'value' }, v.pid ? bytes(u.memory) : '–'),
    limit ? meter(u.memory / limit, '') : null,
    el('small', {}, limit ? 'of ' + bytes(limit) : 'no limit'));
}

function processor(l, v) {
  const used = l.last ? l.last.cpu : 0, limit = v.limits.cpu / 1000;
  return cell('Processor', el('span', { class: 'value' }, percent(used)),
    limit ? meter(used / limit, 'cpu') : null,
    el('small', {}, limit ? 'of ' + percent(limit) : 'no limit'));
}

function requests(l, u) {
  const failed = u.requests ? 100 * u.failed / u.requests : 0;
  return cell('Requests', el('span', { class: 'value' }, l.last ? rate(l.last.rps) : '–'),
    el('small', {}, u.failed ? `${count(u.failed)} failed (${failed.toFixed(failed < 10 ? 1 : 0)} %)` : 'none failed'));
}

function latency(u) {
  if (u.p50 === null) return cell('Latency', '–', el('small', {}, 'no answers yet'));
  return cell('Latency', el('span', { class: 'value', title: 'half of the last answers took no longer' }, took(u.p50)),
    el('small', { title: '99 of 100 took no longer' }, 'p99 ' + took(u.p99)));
}
