// How a version runs.
import { el } from './dom.js';
import { bytes, count, percent, plural } from './format.js';

export function facts(v) {
  const l = v.limits, limits = [];
  if (l.memory) limits.push(bytes(l.memory) + ' of memory');
  if (l.cpu) limits.push(percent(l.cpu / 1000) + ' of a processor');
  if (l.pids) limits.push(plural(l.pids, 'process or thread', 'processes and threads'));
  if (l.open_files) limits.push(plural(l.open_files, 'open file') + ' a process');
  const list = (items, none) => items.length ? el('ul', {}, items.map(i => el('li', {}, i))) : el('span', { class: 'soft' }, none);
  const names = (items, none) => items.length ? items.map((n, i) => [i ? ', ' : '', el('code', {}, n)]) : el('span', { class: 'soft' }, none);
  const digest = d => el('code', { class: 'digest' }, d);
  const fact = (name, content) => el('div', {}, el('dt', {}, name), el('dd', {}, content));
  return el('dl', { class: 'facts' },
    fact('Runs', el('code', {}, v.runs)),
    fact('Python', v.python + (v.cold ? ', never forked' : v.forked ? ', forked from a warm process' : ', started by itself')),
    v.unforkable ? fact('Not forked, since', v.unforkable) : null,
    fact('Not imported before the fork', list(Object.entries(v.left_out).map(([n, why]) => [el('code', {}, n), `: ${why}`]), 'nothing is left out')),
    fact('Isolation in force', list(v.isolation, 'none')),
    fact('Limits asked for', list(limits, 'none')),
    fact('Variables (values are not shown)', names(v.variables, 'none of its own')),
    fact('Secrets', names(v.secrets, 'none')),
    fact('Further trees', list(Object.entries(v.outputs).map(([n, d]) => [n + ' ', digest(d)]), 'none')),
    fact('Restarts', count(v.usage.restarts)),
    fact('Version', digest(v.name)), fact('Root of source.pex', digest(v.source)), fact('Root of deps.pex', digest(v.deps)));
}
