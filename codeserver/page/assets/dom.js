// Elements are made of text nodes and attributes alone: what versions, locations and logs are called stays text.

const SVG = 'http://www.w3.org/2000/svg';

// el makes an element. Of the attributes, style is an object, and false and null leave one out.
export function el(tag, attrs = {}, ...children) { return fill(document.createElement(tag), attrs, children); }

// svg makes an element of a drawing.
export function svg(tag, attrs = {}, ...children) { return fill(document.createElementNS(SVG, tag), attrs, children); }

function fill(e, attrs, children) {
  for (const [name, value] of Object.entries(attrs)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === 'style') Object.assign(e.style, value);
    else e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...children.flat(Infinity).filter(c => c !== null && c !== undefined && c !== false)
    .map(c => c instanceof Node ? c : document.createTextNode(String(c))));
  return e;
}

// morph makes old's content what next's is, and keeps the elements that stay, with their focus and scroll position.
// Elements with one data-key are the same one; what is below data-own is its owner's.
export function morph(old, next) {
  const keyed = new Map();
  for (const c of old.children) if (c.dataset.key) keyed.set(c.dataset.key, c);
  let at = old.firstChild;
  for (const want of [...next.childNodes]) {
    const key = want.nodeType === 1 && want.dataset.key;
    let have = key ? keyed.get(key) : at;
    if (have && !key && have.nodeType === 1 && have.dataset.key) have = null;
    if (have && alike(have, want)) {
      if (have !== at) old.insertBefore(have, at);
      patch(have, want);
      at = have.nextSibling;
    } else {
      old.insertBefore(want, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName &&
  (a.nodeType !== 1 || a.dataset.key === b.dataset.key);

function patch(a, b) {
  if (a.nodeType !== 1) {
    if (a.nodeValue !== b.nodeValue) a.nodeValue = b.nodeValue;
    return;
  }
  for (const { name } of [...a.attributes]) {
    if (!b.hasAttribute(name) && !(name === 'open' && a.nodeName === 'DETAILS')) a.removeAttribute(name);
  }
  for (const { name, value } of b.attributes) {
    if (name === 'style') {
      if (a.style.cssText !== b.style.cssText) a.style.cssText = b.style.cssText;
    } else if (a.getAttribute(name) !== value) a.setAttribute(name, value);
  }
  if (!('own' in a.dataset)) morph(a, b);
}
