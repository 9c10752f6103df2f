// What the state of a location means, in words.
import { el } from './dom.js';
import { short } from './format.js';

export const currentOf = l => l.versions.find(v => v.name === l.current) || null;
export const versionOf = (l, name) => l.versions.find(v => v.name === name) || null;

// starting is the version that is being deployed beside the current one.
export const starting = l => l.versions.find(v => v.state === 'starting' && v.name !== l.current) || null;

// tried is the version that gets a share of the requests beside the current one.
const tried = l => l.versions.find(v => v.name === l.canary && v !== currentOf(l)) || null;

// stateOf is a location's state: a class and a word.
export function stateOf(l) {
  const v = currentOf(l);
  if (l.listen_error) return ['bad', 'does not listen'];
  if (!v) return starting(l) ? ['warn busy', 'first deploy'] : ['off', 'not deployed'];
  switch (v.state) {
    case 'ready': return ['ok', 'serving'];
    case 'starting': return ['warn busy', 'starting'];
    case 'failed': return ['bad', 'down'];
    default: return ['off', v.state];
  }
}

// versionState is a version's.
export function versionState(l, v) {
  if (v === tried(l)) return ['warn', `canary, ${l.canary_percent} %`];
  switch (v.state) {
    case 'ready': return v.name === l.current ? ['ok', 'serving'] : ['ok', 'kept warm'];
    case 'starting': return ['warn busy', 'starting'];
    case 'draining': return ['warn busy', 'draining'];
    case 'failed': return ['bad', 'failed'];
    default: return ['off', 'stopped'];
  }
}

export const badge = ([kind, word]) => el('span', { class: 'state ' + kind }, word);

// news says what is new in a state, for those who do not see it.
export function news(before, after) {
  if (!before) return '';
  const told = [];
  for (const l of after.locations) {
    const old = before.locations.find(o => o.name === l.name);
    if (!old) told.push(`${l.name} is new`);
    else if (old.current !== l.current && l.current) told.push(`${l.name} now serves ${short(l.current)}`);
    if (l.failure && (!old || !old.failure || old.failure.time !== l.failure.time)) told.push(`a deploy of ${l.name} failed`);
    const v = starting(l), was = old && starting(old);
    if (v && (!was || was.name !== v.name)) told.push(`${short(v.name)} is being deployed to ${l.name}`);
  }
  for (const old of before.locations) if (!after.locations.some(l => l.name === old.name)) told.push(`${old.name} is gone`);
  return told.join('. ');
}
