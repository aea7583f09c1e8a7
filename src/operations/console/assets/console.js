import { Refused, token } from './api.js';
import { byId, tell } from './dom.js';
import { refreshLetters, startLetters } from './letters.js';
import { refreshLists, startReplays } from './lists.js';
import { refreshOverview } from './overview.js';
import { startPeople } from './people.js';

const EVERY_MS = 5000;
let timer;
let isPaused = false;
let refreshing;

/** All that is shown, once at a time; what fails is told, and tried again with the rest. */
async function refreshAll() {
  const results = await Promise.allSettled([refreshOverview(), refreshLetters(), refreshLists(refresh)]);
  const reasons = results.flatMap(({ reason }) => (reason ? [reason] : []));
  const failed = reasons.find((reason) => !(reason instanceof Refused && reason.status === 404));
  byId('refreshed').textContent = `as of ${new Date().toLocaleTimeString()}`;
  if (!failed) {
    if (byId('status').className === 'bad') tell('');
  } else if (failed instanceof Refused) tell(failed.message, true);
  else tell('The service does not answer.', true);
}

export const refresh = () => (refreshing ??= refreshAll().finally(() => (refreshing = undefined)));

/** Nothing is asked while nobody looks. */
function schedule() {
  clearTimeout(timer);
  if (isPaused || document.hidden) return;
  timer = setTimeout(() => void refresh().finally(schedule), EVERY_MS);
}

function showToken() {
  byId('known').textContent =
    token.get() === '' ? 'No token is kept in this tab.' : 'A token is kept in this tab.';
  byId('token').value = '';
}

byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const given = byId('token')
    .value.trim()
    .replace(/^Bearer +/i, '');
  if (given !== '') token.set(given);
  showToken();
  tell('');
  void refresh();
});
byId('forget').addEventListener('click', () => {
  token.forget();
  location.reload();
});
byId('pause').addEventListener('click', ({ target }) => {
  isPaused = !isPaused;
  target.setAttribute('aria-pressed', String(isPaused));
  target.textContent = isPaused ? 'Go on' : 'Pause';
  schedule();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !isPaused) void refresh().finally(schedule);
  else schedule();
});
startPeople();
startLetters(refresh);
startReplays(refresh);
showToken();
void refresh().finally(schedule);
