// How figures read.

export const short = name => name.slice(0, 12);
export const count = n => Math.round(n).toLocaleString('en');

export function bytes(b) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (Math.abs(b) >= 1000 && i < units.length - 1) { b /= 1024; i++; }
  return (i === 0 || Math.abs(b) >= 100 ? Math.round(b) : b.toFixed(1)) + ' ' + units[i];
}

// took is a duration in milliseconds.
export function took(ms) {
  if (ms < 10) return ms.toFixed(1) + ' ms';
  if (ms < 1000) return Math.round(ms) + ' ms';
  if (ms < 60000) return (ms / 1000).toFixed(ms < 10000 ? 2 : 1) + ' s';
  return Math.floor(ms / 60000) + ' min ' + Math.round(ms % 60000 / 1000) + ' s';
}

export function ago(time, now) {
  const s = Math.max(0, (now - time) / 1000);
  if (s < 5) return 'just now';
  if (s < 90) return Math.round(s) + ' s ago';
  if (s < 5400) return Math.round(s / 60) + ' min ago';
  if (s < 129600) return Math.round(s / 3600) + ' h ago';
  return Math.round(s / 86400) + ' days ago';
}

const twoDigits = n => String(n).padStart(2, '0');
export const clock = t => `${twoDigits(t.getHours())}:${twoDigits(t.getMinutes())}:${twoDigits(t.getSeconds())}`;
export const fineClock = t => clock(t) + '.' + String(t.getMilliseconds()).padStart(3, '0');
export const date = t => `${t.getFullYear()}-${twoDigits(t.getMonth() + 1)}-${twoDigits(t.getDate())} ${clock(t)}`;

// percent is of processors: 100 % is one.
export const percent = cpu => (cpu * 100 < 9.95 ? (cpu * 100).toFixed(1) : Math.round(cpu * 100)) + ' %';
export const rate = n => (n < 9.95 ? n.toFixed(1) : count(n)) + '/s';
export const plural = (n, one, many = one + 's') => count(n) + ' ' + (n === 1 ? one : many);
