// How long each step of a deploy took, to scale.
import { el } from './dom.js';
import { bytes, plural, took } from './format.js';

const kindOf = name => name.startsWith('load') ? 'load' : name === 'environment' ? 'make' : 'run';

// timeline draws steps one after the other. With going, the next one is under way.
export function timeline(stages, going) {
  const total = stages.reduce((s, st) => s + st.took, 0);
  if (!stages.length && !going) {
    return el('p', { class: 'empty' }, 'Its steps are not known: this codeserver has not started it since it was started itself.');
  }
  const scale = total * (going ? 1.25 : 1) || 1;
  let begun = 0;
  const rows = stages.map(st => {
    const left = 100 * begun / scale, width = 100 * st.took / scale;
    begun += st.took;
    return el('div', { class: 'step' },
      el('span', {}, st.name),
      el('span', { class: 'bar', 'aria-hidden': 'true' }, el('i', { class: kindOf(st.name), style: { left: left + '%', width: width + '%' } })),
      el('span', { class: 'right value' }, took(st.took)),
      el('span', { class: 'note small soft' }, st.bytes || st.blobs ? `${bytes(st.bytes)} in ${plural(st.blobs, 'blob')}` : ''));
  });
  if (going) {
    rows.push(el('div', { class: 'step going' }, el('span', { class: 'soft' }, 'next step'),
      el('span', { class: 'bar', 'aria-hidden': 'true' }, el('i', { style: { left: 100 * begun / scale + '%' } })),
      el('span', { class: 'right soft' }, '…'), el('span', { class: 'note' })));
  } else {
    const fetched = stages.reduce((s, st) => s + st.bytes, 0);
    rows.push(el('div', { class: 'step sum' }, el('span', {}, 'in all'), el('span', { class: 'bar' }),
      el('span', { class: 'right value' }, took(total)), el('span', { class: 'note small soft' }, fetched ? bytes(fetched) + ' fetched' : 'nothing fetched')));
  }
  return el('div', { class: 'timeline' }, ...rows);
}
