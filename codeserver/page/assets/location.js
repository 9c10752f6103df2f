// One location.
import { el, morph } from './dom.js';
import { call, locationPath } from './api.js';
import { ago, bytes, count, date, percent, plural, rate, short, took } from './format.js';
import { badge, currentOf, starting, stateOf, versionOf, versionState } from './state.js';
import { Chart, niceBytes, niceNumber } from './chart.js';
import { askChanges, changes, summary } from './compare.js';
import { timeline } from './timeline.js';
import { Log } from './logs.js';
import { facts } from './facts.js';

const KEPT = 720; // points of a history

export class LocationPage {
  constructor(name, main, say) {
    this.name = name;
    this.say = say;
    this.top = el('div', { class: 'stack' });
    this.charts = [
      new Chart('Memory', 'memory', { value: p => p.memory, format: bytes, nice: niceBytes }),
      new Chart('Processor', 'cpu', { value: p => p.cpu, format: percent, nice: n => niceNumber(n * 100, 5) / 100 }),
      new Chart('Requests', 'requests', { value: p => p.rps, format: rate, nice: n => niceNumber(n, 1) }),
    ];
    this.versions = el('div');
    this.steps = el('div');
    this.compared = el('div', { 'aria-live': 'polite' });
    this.log = new Log(name);
    this.logged = ''; // the version that was chosen; "" is the one that serves
    this.about = el('div');
    this.aboutOf = el('code', { class: 'soft' });
    this.points = [];
    this.chosen = ''; // the version whose steps are shown; "" is the newest that has any
    main.replaceChildren(this.top, el('div', { class: 'charts' }, this.charts.map(c => c.root)),
      this.section('Versions', 'versions', null, this.versions), this.stepsSection(), this.compareSection(), this.logSection(),
      this.section('How it runs', 'about', this.aboutOf, this.about));
    this.body = [...main.children].slice(1);
    // What was written last says most.
    this.top.addEventListener('toggle', e => {
      const words = e.target.querySelector('pre.words');
      if (words) words.scrollTop = words.scrollHeight;
    }, true);
  }

  section(title, id, tools, ...content) {
    return el('section', { class: 'card', 'aria-labelledby': id },
      el('header', {}, el('h2', { id }, title), tools), ...content);
  }

  stepsSection() {
    this.stepsOf = el('span', { class: 'soft small' });
    return this.section('Deploy', 'steps', this.stepsOf, this.steps);
  }

  compareSection() {
    this.from = el('select', { id: 'from' });
    this.to = el('select', { id: 'to' });
    const tools = el('div', { class: 'controls' }, el('label', {}, 'from', this.from), el('label', {}, 'to', this.to));
    return this.section('What changed', 'compare', tools, this.compared);
  }

  logSection() {
    this.which = el('select', { id: 'log-version' });
    this.pauseButton = el('button', { 'data-do': 'pause', 'aria-pressed': 'false' }, 'Pause');
    const tools = el('div', { class: 'controls' }, el('label', {}, 'of', this.which), this.pauseButton);
    return this.section('Log', 'log', tools, this.log.box,
      el('div', { class: 'log-foot' }, this.log.foot));
  }

  // load reads what it used before the page was opened, or slept.
  async load() {
    this.loaded = true;
    try {
      const h = await call('GET', locationPath(this.name, 'history'));
      this.points = h.points;
      if (this.state) this.draw();
    } catch { /* it comes point by point */ }
  }

  show(state) {
    this.state = state;
    const now = new Date(state.now), l = state.locations.find(l => l.name === this.name);
    this.location = l;
    for (const part of this.body) part.hidden = !l || !l.versions.length;
    if (!l) {
      this.log.close();
      this.following = undefined;
      morph(this.top, this.gone());
      return;
    }
    if (!this.loaded) this.load();
    if (l.last && (!this.points.length || l.last.t > this.points[this.points.length - 1].t)) {
      this.points.push(l.last);
      this.points.splice(0, Math.max(0, this.points.length - KEPT));
    }
    morph(this.top, this.head(l, now));
    if (!l.versions.length) return;
    this.draw();
    morph(this.versions, el('div', {}, this.table(l, now)));
    this.showSteps(l);
    this.choices(l);
    this.follow(l);
    const v = this.shownVersion(l);
    this.aboutOf.textContent = short(v.name);
    morph(this.about, el('div', {}, facts(v)));
  }

  gone() {
    return el('div', {}, el('section', { class: 'card page-empty' }, el('h1', {}, `There is no location ${this.name}`),
      el('p', { class: 'empty' }, 'It was removed, its first deploy failed, or you may not read it.'),
      el('p', {}, el('a', { href: '#/' }, 'All locations'))));
  }

  head(l, now) {
    const v = currentOf(l), back = versionOf(l, l.previous), next = starting(l);
    const parts = [el('div', { class: 'head' },
      el('a', { class: 'crumb', href: '#/' }, '← All locations'),
      el('div', { class: 'title' }, el('h1', {}, l.name), badge(stateOf(l)), el('span', { class: 'mono soft' }, l.address)),
      el('div', { class: 'go' }, back ? this.rollbackButton(l, back, 'main', 'Roll back to ' + short(back.name)) : null))];
    if (next) {
      parts.push(el('div', { class: 'notice' }, el('div', {}, el('strong', {}, v ? 'A deploy is under way. ' : 'The first deploy is under way. '),
        el('code', {}, short(next.name)), v ? ` is starting; ${short(v.name)} serves until it is ready.` : ' is starting.')));
    }
    if (l.canary) {
      parts.push(el('div', { class: 'notice' }, el('div', {}, el('strong', {}, 'A canary is tried. '), el('code', {}, short(l.canary)),
        ` gets ${l.canary_percent} % of the requests.`)));
    }
    if (l.listen_error) {
      parts.push(el('div', { class: 'notice bad' }, el('div', {}, el('strong', {}, 'It does not listen on its address. '), l.listen_error)));
    }
    if (l.failure) parts.push(failure(l.failure, now));
    if (l.channel_error) {
      parts.push(el('div', { class: 'notice bad' }, el('div', {}, el('strong', {}, `Channel ${l.channel} cannot be followed. `), l.channel_error)));
    }
    if (v) parts.push(figures(l, v, now));
    return el('div', {}, ...parts);
  }

  rollbackButton(l, v, kind, text) {
    return el('button', {
      class: kind, 'data-do': 'rollback', 'data-location': l.name, 'data-version': v.name, disabled: !l.may_rollback,
      title: l.may_rollback ? null : 'you have no right to roll this location back',
      'aria-label': `Roll back to ${short(v.name)}`,
    }, text);
  }

  draw() {
    const marks = this.location ? this.location.versions.map(v => Date.parse(v.deployed)) : [];
    const v = this.location && currentOf(this.location);
    this.charts[0].show(this.points, marks, v ? v.limits.memory : 0);
    this.charts[1].show(this.points, marks, v ? v.limits.cpu / 1000 : 0);
    this.charts[2].show(this.points, marks, 0);
  }

  table(l, now) {
    const heads = ['Version', 'State', 'Deployed', 'Trees', 'Memory', 'Requests'];
    const seen = {};
    return el('table', {},
      el('thead', {}, el('tr', {}, heads.map(h => el('th', { scope: 'col' }, h)), el('th', { scope: 'col' }, el('span', { class: 'unseen' }, 'Actions')))),
      el('tbody', {}, l.versions.map(v => {
        seen[v.name] = (seen[v.name] || 0) + 1;
        return this.row(l, v, now, v.name + '#' + seen[v.name]);
      })));
  }

  row(l, v, now, key) {
    const cell = (head, ...content) => el('td', { 'data-head': head }, el('div', {}, ...content));
    const u = v.usage, can = v.name !== l.current && v.state !== 'starting' && l.current;
    return el('tr', { 'data-key': key, class: v === this.shownVersion(l) ? 'chosen' : '' },
      cell('Version', el('button', { class: 'plain mono', 'data-do': 'steps', 'data-version': v.name, title: v.name, 'aria-label': 'Show the deploy of ' + short(v.name) }, short(v.name)),
        el('small', {}, v.pid ? `pid ${v.pid}` + (v.forked ? ', forked' : '') : '')),
      cell('State', badge(versionState(l, v)), u.restarts ? el('small', {}, plural(u.restarts, 'restart')) : null,
        v.error ? el('small', { class: 'why', title: v.error }, firstLine(v.error)) : ending(v.last_ending, now)),
      cell('Deployed', el('span', { class: 'value', title: date(new Date(v.deployed)) }, ago(new Date(v.deployed), now))),
      cell('Trees', el('span', { class: 'small' }, 'source ', el('code', { title: v.source }, short(v.source))),
        el('small', {}, 'deps ', el('code', { title: v.deps }, short(v.deps)))),
      cell('Memory', el('span', { class: 'value' }, v.pid ? bytes(u.memory) : '–'), u.peak ? el('small', {}, 'peak ' + bytes(u.peak)) : null),
      cell('Requests', count(u.requests), u.failed ? el('small', {}, count(u.failed) + ' failed') : null),
      el('td', { class: 'acts right' }, can ? this.rollbackButton(l, v, '', 'Roll back') : null));
  }

  shownVersion(l) {
    return versionOf(l, this.chosen) || starting(l) || currentOf(l) || l.versions[0];
  }

  showSteps(l) {
    const v = this.shownVersion(l), going = v.state === 'starting';
    this.stepsOf.textContent = `of ${short(v.name)}, ${date(new Date(v.deployed))}` + (v.forked ? ', forked from a warm process' : '');
    morph(this.steps, el('div', {}, timeline(v.stages, going)));
  }

  // choices are the versions that can be compared, and whose logs can be read.
  choices(l) {
    const seen = new Set();
    const kept = l.versions.filter(v => !seen.has(v.name) && seen.add(v.name));
    const option = v => el('option', { value: v.name, 'data-key': v.name }, short(v.name) +
      (v.name === l.current ? ' · serves' : v.name === l.previous ? ' · before' : '') + ' · ' + date(new Date(v.deployed)).slice(5, 16));
    const set = (select, options, value) => {
      morph(select, el('select', {}, ...options));
      select.value = value;
      if (select.selectedIndex < 0) select.selectedIndex = 0;
    };
    const before = versionOf(l, l.previous) || kept.find(v => v.name !== l.current) || kept[0];
    const pair = this.picked ? [this.from.value, this.to.value] : [before.name, l.current || kept[0].name];
    set(this.from, kept.map(option), pair[0]);
    set(this.to, kept.map(option), pair[1]);
    set(this.which, [el('option', { value: '', 'data-key': 'serves' }, 'the version that serves'), ...kept.map(option)], this.logged);
    this.logged = this.which.value;
    this.compare();
  }

  async compare() {
    const from = this.from.value, to = this.to.value, asked = from + ' ' + to;
    if (asked === this.asked) return;
    this.asked = asked;
    if (from === to) {
      this.compared.replaceChildren(el('p', { class: 'empty' }, this.from.options.length < 2 ?
        'There is one version yet. After the next deploy this shows what it changed.' : 'These are one and the same version.'));
      return;
    }
    try {
      const c = await askChanges(this.name, from, to);
      if (asked === this.asked) this.compared.replaceChildren(el('p', { class: 'summary' }, summary(c)), changes(c));
    } catch (e) {
      if (asked === this.asked) this.compared.replaceChildren(el('p', { class: 'empty' }, e.message));
    }
  }

  // follow keeps the log on the version that was chosen, or on the one that serves whichever that is.
  follow(l) {
    const version = this.logged || l.current || (starting(l) || l.versions[0]).name;
    const process = `${version} ${(versionOf(l, version) || {}).pid ? 'runs' : 'has ended'}`;
    if (process === this.following || document.hidden) return;
    this.following = process;
    this.log.open(version);
  }

  act(button) {
    switch (button.dataset.do) {
      case 'steps':
        this.chosen = button.dataset.version;
        this.show(this.state);
        break;
      case 'pause': {
        const on = !this.log.paused;
        this.log.pause(on);
        button.textContent = on ? 'Follow' : 'Pause';
        button.setAttribute('aria-pressed', String(on));
        break;
      }
    }
  }

  changed(control) {
    if (control === this.which) {
      this.logged = control.value;
      this.follow(this.location);
    } else if (control === this.from || control === this.to) {
      this.picked = true;
      this.compare();
    }
  }

  sleep() { this.log.close(); this.following = undefined; }
  wake() { this.loaded = false; }
  close() { this.log.close(); }
}

// firstLine leaves out what an error quotes of a log.
function firstLine(text) {
  const line = text.split('\n', 1)[0];
  return line.length > 160 ? line.slice(0, 160) + '…' : line;
}

// ending says why a version that is up was started again.
function ending(e, now) {
  if (!e) return null;
  return el('small', { class: 'why', title: `${date(new Date(e.time))}: ${e.reason}` }, `the last ${ago(new Date(e.time), now)}: ` + firstLine(e.reason));
}

function failure(f, now) {
  return el('div', { class: 'notice bad' },
    el('div', {}, el('strong', {}, 'The last deploy failed. '), el('code', {}, short(f.version)), ', ',
      el('span', { title: date(new Date(f.time)) }, ago(new Date(f.time), now)), ': ', firstLine(f.error) + '.'),
    el('details', {}, el('summary', {}, 'Steps, and what it wrote'), el('div', {}, timeline(f.stages, false)), el('pre', { class: 'words' }, f.error)));
}

function figures(l, v, now) {
  const u = v.usage, p = l.last || { cpu: 0, rps: 0, failed: 0 };
  const figure = (label, big, small) => el('div', {}, el('dt', {}, label), el('dd', {}, el('div', { class: 'big' }, big), el('small', {}, small)));
  return el('dl', { class: 'card figures' },
    figure('Serves', el('code', { title: v.name }, v.name.slice(0, 8)), 'deployed ' + ago(new Date(v.deployed), now)),
    figure('Memory', v.pid ? bytes(u.memory) : '–', v.limits.memory ? 'of ' + bytes(v.limits.memory) : 'peak ' + bytes(u.peak)),
    figure('Processor', percent(p.cpu), v.limits.cpu ? 'of ' + percent(v.limits.cpu / 1000) : took(u.cpu * 1000) + ' used'),
    figure('Requests', rate(p.rps), `${count(u.requests)} in all, ${count(u.active)} under way`),
    figure('Failed', count(u.failed), u.requests ? (100 * u.failed / u.requests).toFixed(1) + ' % of its requests' : 'no requests yet'),
    figure('Latency', u.p50 === null ? '–' : took(u.p50), u.p99 === null ? 'no answers yet' : 'p99 ' + took(u.p99)));
}
