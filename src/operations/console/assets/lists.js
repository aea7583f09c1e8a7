import { act, read } from './api.js';
import { attempt, byId, element, faint, showList, tell, timeOf } from './dom.js';

async function showKeys(done) {
  const { items } = await read('messages/waiting-keys?limit=50');
  showList(byId('key-list'), items, ({ topic, hash, key, partition, since, releasedAt, dead, parked }) => {
    const name = key ?? (partition === null ? hash : `without a key, partition ${partition}`);
    const release = element('button', { type: 'button' }, `Release ${topic}, ${name}`);
    release.addEventListener('click', () =>
      attempt(async () => {
        const reason = byId('release-reason').value.trim();
        if (reason === '') {
          byId('release-reason').focus();
          throw new Error('Say why: the reason is kept with who did it.');
        }
        await act('messages/waiting-keys/release', { topic, hash, reason });
        tell(`${topic}, ${name} is released.`);
        await done();
      }),
    );
    const goesOn = releasedAt === null ? 'until it is released' : `goes on ${timeOf(releasedAt)}`;
    return [
      release,
      element('div', {}, faint(`${dead} dead, ${parked} parked · since ${timeOf(since)} · ${goesOn}`)),
    ];
  });
}

async function showAudit() {
  const { items } = await read('messages/audit?limit=25');
  showList(byId('audit-list'), items, ({ at, actor, action, reason, deadLetter, topic }) => [
    element('strong', {}, action),
    ` ${deadLetter ?? topic ?? ''} `,
    faint(`by ${actor} · ${timeOf(at)}`),
    element('div', {}, reason ?? ''),
  ]);
}

async function showReplays(done) {
  const { items } = await read('messages/replays');
  showList(byId('replay-list'), items, ({ id, topic, from, to, state, progress, error }) => {
    const { read: done_ = 0, total = 0, applied = 0, repeated = 0, skipped = 0, dead = 0 } = progress;
    const counts = `${done_} of ${total} read: ${applied} applied, ${repeated} were applied before, ${skipped} left out, ${dead} dead`;
    const cancel = element('button', { type: 'button' }, `Cancel the replay of ${topic}`);
    cancel.addEventListener('click', () =>
      attempt(async () => {
        await act(`messages/replays/${id}/cancel`, {
          reason: byId('replay-reason').value.trim() || 'cancelled in the console',
        });
        await done();
      }),
    );
    return [
      element('strong', {}, `${topic}: ${state}`),
      element('div', {}, counts),
      ...(error ? [element('div', { className: 'bad' }, error)] : []),
      faint(`${timeOf(from)} to ${timeOf(to)}`),
      ...(state === 'running' ? [element('div', {}, cancel)] : []),
    ];
  });
}

/** The lists that are read again and again. */
export const refreshLists = (done) => Promise.all([showKeys(done), showAudit(), showReplays(done)]);

export function startReplays(done) {
  byId('replay-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const time = (id) => new Date(byId(id).value).toISOString();
    attempt(async () => {
      const [topic, reason] = [byId('replay-topic').value.trim(), byId('replay-reason').value.trim()];
      await act('messages/replays', { topic, from: time('replay-from'), to: time('replay-to'), reason });
      tell(`The replay of ${topic} has begun.`);
      await done();
    });
  });
  byId('release-form').addEventListener('submit', (event) => event.preventDefault());
}
