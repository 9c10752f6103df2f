// Showing a token.
import { el } from './dom.js';

export function signInForm(says, signIn) {
  const input = el('input', { type: 'password', id: 'token', autocomplete: 'current-password', required: true, maxlength: 16384, spellcheck: 'false' });
  const error = el('p', { class: 'error', role: 'alert' }, says);
  const button = el('button', { class: 'main', type: 'submit' }, 'Sign in');
  const form = el('form', {},
    el('h1', {}, 'Sign in'),
    el('label', { for: 'token' }, 'Token', input),
    error, button,
    el('p', { class: 'soft small' }, 'Who runs the codeserver makes one with ', el('code', {}, 'codeserver token NAME'), '.'));
  form.addEventListener('submit', async e => {
    e.preventDefault();
    button.disabled = true;
    error.textContent = '';
    try {
      await signIn(input.value.trim());
    } catch (e) {
      error.textContent = e.message;
      input.select();
    }
    button.disabled = false;
  });
  return el('section', { class: 'card signin' }, form);
}
