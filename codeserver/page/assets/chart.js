// A line over time, with what it was under the pointer.
import { el, svg } from './dom.js';
import { clock } from './format.js';

const WIDTH = 1000, HEIGHT = 110, SHORTEST = 2 * 60 * 1000;

export class Chart {
  // value picks a number of a point; format says it; nice rounds the top of the scale up.
  constructor(label, kind, { value, format, nice }) {
    Object.assign(this, { label, value, format, nice });
    this.now = el('span', { class: 'now' });
    this.most = el('span', { class: 'most' });
    this.from = el('span');
    this.to = el('span');
    this.svg = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
    this.root = el('section', { class: 'card chart ' + kind },
      el('div', { class: 'line' }, el('h3', {}, label), this.now),
      el('div', { class: 'plot' }, this.svg, this.most),
      el('div', { class: 'span', 'aria-hidden': 'true' }, this.from, this.to));
    this.points = [];
    this.svg.addEventListener('pointermove', e => this.point(e));
    this.svg.addEventListener('pointerleave', () => { this.pointed = null; this.draw(); });
  }

  show(points, marks, limit) {
    this.points = points;
    this.marks = marks;
    this.limit = limit;
    this.draw();
  }

  point(e) {
    const box = this.svg.getBoundingClientRect();
    const t = this.start + (e.clientX - box.left) / box.width * (this.end - this.start);
    this.pointed = this.points.reduce((best, p) => !best || Math.abs(p.t - t) < Math.abs(best.t - t) ? p : best, null);
    this.draw();
  }

  draw() {
    const { points } = this, last = points[points.length - 1];
    if (!last) {
      this.now.textContent = 'the first figures come in a few seconds';
      return;
    }
    this.end = last.t;
    this.start = Math.min(points[0].t, this.end - SHORTEST);
    const highest = Math.max(...points.map(this.value));
    const near = this.limit && this.limit <= highest * 3; // a limit that is far off would flatten the line
    const top = this.nice(Math.max(highest, near ? this.limit : 0));
    const x = t => (t - this.start) / (this.end - this.start) * WIDTH;
    const y = v => HEIGHT - v / top * (HEIGHT - 6);
    const path = points.map((p, i) => (i ? 'L' : 'M') + x(p.t).toFixed(1) + ' ' + y(this.value(p)).toFixed(1)).join('');
    const across = (h, kind) => svg('line', { class: kind, x1: 0, x2: WIDTH, y1: h, y2: h });
    const down = (at, kind) => svg('line', { class: kind, x1: at, x2: at, y1: 0, y2: HEIGHT });
    this.svg.replaceChildren(
      across(HEIGHT, 'grid'), across(y(top / 2), 'grid'), across(y(top), 'grid'),
      ...this.marks.filter(t => t > this.start && t <= this.end).map(t => down(x(t), 'mark')),
      ...(near ? [across(y(this.limit), 'limit')] : []),
      svg('path', { class: 'area', d: path + `L${x(last.t).toFixed(1)} ${HEIGHT}L${x(points[0].t).toFixed(1)} ${HEIGHT}Z` }),
      svg('path', { class: 'trace', d: path }),
      ...(this.pointed ? [down(x(this.pointed.t), 'cursor')] : []));
    const shown = this.pointed || last;
    this.now.textContent = (this.pointed ? clock(new Date(shown.t)) + ' · ' : '') + this.format(this.value(shown));
    this.most.textContent = this.format(top);
    this.from.textContent = clock(new Date(this.start));
    this.to.textContent = this.marks.some(t => t > this.start) ? 'dashed: a deploy' : 'now';
    this.svg.setAttribute('aria-label', `${this.label} since ${clock(new Date(points[0].t))}: now ${this.format(this.value(last))}, ` +
      `at most ${this.format(highest)}`);
  }
}

// niceBytes and niceNumber round the top of a scale up to a number that reads well.
export function niceBytes(b) {
  let unit = 1 << 20;
  while (b > unit * 1000) unit *= 1024;
  return unit * niceNumber(b / unit, 1);
}

export function niceNumber(n, least) {
  n = Math.max(n, least);
  const power = 10 ** Math.floor(Math.log10(n));
  return power * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find(s => s * power >= n * 0.999);
}
