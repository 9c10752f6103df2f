// The log of a version as it is written.
import { el } from './dom.js';
import { events, locationPath, Refused } from './api.js';
import { fineClock, plural } from './format.js';

const MOST = 2000; // lines that are shown
const COLOURS = /\x1b\[[0-9;]*m/g;

export class Log {
  constructor(location) {
    this.location = location;
    this.box = el('div', { class: 'log', role: 'log', 'aria-live': 'off', 'aria-label': 'Log', tabindex: '0' });
    this.foot = el('span', { role: 'status' });
    this.held = []; // lines that came while it is paused
    this.paused = false;
  }

  // open shows the log of a version from its last lines on.
  open(version) {
    this.close();
    this.version = version;
    this.box.replaceChildren();
    this.held = [];
    this.stopped = new AbortController();
    this.read(version, this.stopped.signal);
  }

  close() {
    if (this.stopped) this.stopped.abort();
    this.stopped = null;
  }

  async read(version, signal) {
    for (;;) {
      let over = false, fresh = true;
      try {
        this.note('');
        await events('GET', locationPath(this.location, `logs?version=${encodeURIComponent(version)}`), null, signal, (kind, data) => {
          if (signal.aborted) return;
          if (fresh) { this.box.replaceChildren(); this.held = []; fresh = false; }
          if (kind === 'lines') this.add(data);
          if (kind === 'end') { over = true; this.note(data.error || 'This version has ended: nothing more will come.'); }
        });
      } catch (e) {
        if (signal.aborted) return;
        this.note(e instanceof Refused ? e.message : 'No answer from the codeserver; trying again.');
        if (e instanceof Refused && e.status === 404) return;
      }
      if (signal.aborted) return;
      if (over) {
        if (!this.box.firstChild && !this.held.length) this.box.append(el('p', {}, 'It has written nothing.'));
        return;
      }
      await new Promise(done => setTimeout(done, 1500));
      if (signal.aborted) return;
    }
  }

  add(lines) {
    if (this.paused) {
      this.held.push(...lines);
      this.held.splice(0, Math.max(0, this.held.length - MOST));
      this.note(plural(this.held.length, 'new line') + ' since it was paused');
      return;
    }
    const end = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    this.box.append(...lines.slice(-MOST).map(l => el('div', {},
      el('time', l.time ? { datetime: l.time } : {}, l.time ? fineClock(new Date(l.time)) : ''),
      el('span', {}, l.text.replace(COLOURS, '')))));
    while (this.box.childElementCount > MOST) this.box.firstChild.remove();
    if (end) this.box.scrollTop = this.box.scrollHeight;
  }

  pause(on) {
    this.paused = on;
    if (on) {
      this.note('Paused');
      return;
    }
    this.note('');
    const held = this.held;
    this.held = [];
    this.box.scrollTop = this.box.scrollHeight;
    if (held.length) this.add(held);
  }

  note(text) { this.foot.textContent = text; }
}
