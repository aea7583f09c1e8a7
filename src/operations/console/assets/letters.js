import { act, read } from './api.js';
import { attempt, byId, element, faint, showList, tell, timeOf } from './dom.js';

const PAGE = 25;
let filter = {};
let after = [];
let open;
/** Told when something was done. */
let onDone = () => undefined;

const shown = (bytes) => (bytes === null ? '' : (bytes.text ?? bytes.base64));

function toItem(letter) {
  const { seq, state, topic, code, key, message, createdAt, attempts } = letter;
  const button = element(
    'button',
    { type: 'button', className: 'wide', id: `letter-${seq}` },
    `${seq} ${topic} `,
    element('strong', {}, code),
    ` ${state}`,
  );
  button.addEventListener('click', () => attempt(() => show(seq)));
  return [
    button,
    element('div', {}, message),
    faint(`key ${key ?? '–'} · ${timeOf(createdAt)} · ${attempts} attempts`),
  ];
}

/** Lists the page that is shown. */
export async function refreshLetters() {
  const query = new URLSearchParams({
    ...filter,
    limit: String(PAGE),
    ...(after.length > 0 && { after: after.at(-1) }),
  });
  const { items, next } = await read(`messages/dead-letters?${query}`);
  const list = byId('letter-list');
  const focused = list.contains(document.activeElement) ? document.activeElement.id : undefined;
  showList(list, items, toItem, 'No dead letters.');
  // Who goes through the list by keyboard stays where they are.
  if (focused) byId(focused)?.focus();
  const more = byId('more-letters');
  more.hidden = next === null;
  more.onclick = () => attempt(() => (after.push(next), refreshLetters()));
}

async function show(seq) {
  const letter = await read(`messages/dead-letters/${seq}`);
  open = letter;
  const { topic, code, message, causes, value, valueLength, headers, hasAllHeaders, state } = letter;
  byId('letter-title').textContent = `Dead letter ${seq}: ${code}`;
  byId('letter-message').textContent = message;
  const facts = {
    State: letter.isQuarantined ? `${state}, its key is quarantined` : state,
    Topic: `${topic}, partition ${letter.partition}, offset ${letter.offset}`,
    Key: letter.key ?? '–',
    'Message id': letter.messageId,
    Written: timeOf(Number(letter.timestamp)),
    Stored: timeOf(letter.createdAt),
    Attempts: letter.attempts,
    'Trace id': letter.traceId ?? '–',
  };
  byId('letter-facts').replaceChildren(
    ...Object.entries(facts).flatMap(([name, fact]) => [element('dt', {}, name), element('dd', {}, fact)]),
  );
  byId('letter-causes').textContent =
    causes.length === 0
      ? 'Not kept.'
      : causes
          .map(
            ({ type, code: of, message: what, stack }) =>
              `${type}${of ? ` (${of})` : ''}: ${what}${stack ? `\n${stack}` : ''}`,
          )
          .join('\ncaused by ');
  byId('letter-value').value =
    value === null && valueLength !== null ? `${valueLength} bytes, too many to be shown` : shown(value);
  byId('letter-headers').value = JSON.stringify(headers, null, 2);
  byId('letter-reason').value = '';
  tell('', false, byId('letter-status'));
  const isWhole = value !== null || valueLength === null;
  const isOpen = state === 'dead' || state === 'parked';
  byId('letter-value').readOnly = !isWhole || state !== 'dead';
  byId('letter-headers').readOnly = !hasAllHeaders || state !== 'dead';
  byId('letter-correct').disabled = !isWhole || state !== 'dead';
  byId('letter-replay').disabled = byId('letter-discard').disabled = !isOpen;
  byId('letter').showModal();
}

/** The correction as it was written; headers only where they were changed. */
function correction() {
  const text = byId('letter-value').value;
  const given = byId('letter-headers').value;
  const headers = given === JSON.stringify(open.headers, null, 2) ? undefined : JSON.parse(given);
  const isBase64 = open.value?.base64 !== undefined;
  const value = text === '' && open.value === null ? null : isBase64 ? { base64: text } : { text };
  return { value, ...(headers && { headers }) };
}

function perform(action, body) {
  const status = byId('letter-status');
  return attempt(async () => {
    const reason = byId('letter-reason').value.trim();
    if (reason === '') {
      byId('letter-reason').focus();
      throw new Error('Say why: the reason is kept with who did it.');
    }
    await act(`messages/dead-letters/${open.seq}/${action}`, { ...body(), reason });
    byId('letter').close();
    tell(`Dead letter ${open.seq}: ${action} is done.`);
    await onDone();
  }, status);
}

/** @param done what is to be shown anew once something was done */
export function startLetters(done) {
  onDone = done;
  byId('letters-form').addEventListener('submit', (event) => {
    event.preventDefault();
    filter = Object.fromEntries([...new FormData(event.target)].filter(([, value]) => value !== ''));
    after = [];
    attempt(refreshLetters);
  });
  byId('letter-correct').addEventListener('click', () => perform('correct', correction));
  byId('letter-replay').addEventListener('click', () => perform('replay', () => ({})));
  byId('letter-discard').addEventListener('click', () => perform('discard', () => ({})));
  // Enter in the reason is no decision.
  byId('letter-reason').addEventListener(
    'keydown',
    (event) => event.key === 'Enter' && event.preventDefault(),
  );
}
