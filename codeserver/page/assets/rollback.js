// Going back to a version, once it was confirmed.
import { el } from './dom.js';
import { events, locationPath } from './api.js';
import { askChanges, changes, summary } from './compare.js';
import { date, short, took } from './format.js';
import { versionOf } from './state.js';

export function askRollback(dialog, l, name, say) {
  const v = versionOf(l, name), now = versionOf(l, l.current);
  if (!v || dialog.open) return;
  const named = v => [el('code', {}, short(v.name)), el('span', { class: 'soft' }, ' deployed ' + date(new Date(v.deployed)))];
  const differs = el('div', {}, el('p', { class: 'soft small' }, 'Comparing the two…'));
  const progress = el('ol', { class: 'steps', hidden: true, 'aria-live': 'polite' });
  const outcome = el('p', { class: 'outcome', role: 'alert' });
  const cancel = el('button', { type: 'button' }, 'Cancel');
  const go = el('button', { type: 'button', class: 'main' }, 'Roll back to ' + short(v.name));
  const warm = v.pid ? 'Its process is still there: the traffic moves at once.' :
    'It is started first. Until it is ready the present version goes on serving, also if it does not become ready.';
  dialog.replaceChildren(
    el('h2', { id: 'dialog-title' }, `Roll back ${l.name}`),
    el('dl', { class: 'swap' }, el('dt', {}, 'will run'), el('dd', {}, named(v)), el('dt', {}, 'instead of'),
      el('dd', {}, now ? named(now) : 'nothing')),
    differs, el('p', { class: 'soft small' }, warm), progress, outcome,
    el('div', { class: 'actions' }, cancel, go));
  cancel.addEventListener('click', () => dialog.close());
  go.addEventListener('click', async () => {
    go.disabled = true;
    cancel.disabled = true;
    progress.hidden = false;
    outcome.textContent = '';
    const error = await run(l, v, progress);
    cancel.disabled = false;
    cancel.textContent = 'Close';
    go.hidden = !error;
    go.disabled = false;
    go.textContent = 'Try again';
    cancel.focus();
    outcome.className = 'outcome ' + (error ? 'bad' : 'ok');
    outcome.textContent = error ? 'The rollback failed; what served before goes on.' : `${l.name} serves ${short(v.name)}.`;
    if (error) progress.after(el('pre', { class: 'words' }, error));
    say(outcome.textContent);
  });
  // While it is under way the dialog stays; it would go on without.
  dialog.oncancel = e => { if (cancel.disabled) e.preventDefault(); };
  dialog.showModal();
  cancel.focus();
  compare(l, now, v, differs);
}

async function compare(l, now, v, differs) {
  if (!now) { differs.replaceChildren(); return; }
  try {
    const c = await askChanges(l.name, now.name, v.name);
    differs.replaceChildren(el('details', {}, el('summary', {}, summary(c)), changes(c)));
  } catch (e) {
    differs.replaceChildren(el('p', { class: 'soft small' }, e.message));
  }
}

// run does it, and returns why it failed, "" if it did not.
async function run(l, v, progress) {
  for (const old of progress.parentNode.querySelectorAll('pre.words')) old.remove();
  const going = el('li', { class: 'going' }, el('span', { class: 'soft' }, 'under way'));
  progress.replaceChildren(going);
  let error = 'the connection broke off: the rollback goes on, and the page shows what becomes of it';
  try {
    await events('POST', locationPath(l.name, 'rollback'), { version: v.name, current: l.current }, null, (kind, data) => {
      if (kind === 'stage') going.before(el('li', {}, el('span', {}, data.name), el('span', { class: 'soft' }, took(data.took))));
      if (kind === 'end') error = data.error;
    });
  } catch (e) {
    error = e.message;
  }
  if (error) going.replaceWith(el('li', { class: 'bad' }, el('span', {}, 'failed')));
  else going.remove();
  return error;
}
