import { anyNumber, personOf, removableId, SEEDED, seededId, toJson } from './people.mjs';
import { answerParent } from './process.mjs';
import { startProfile, stopProfile } from './profile.mjs';

// The process of one contestant: argument 1 is the address of its file, 2 to 4 are the
// database, the size of its pool, and what else it is to be opened with.
const [file, databaseUrl, poolSize, settings] = process.argv.slice(2);
const { open } = await import(file);
const opening = open({ databaseUrl, poolSize: Number(poolSize), ...JSON.parse(settings) });
// The answer to `open` reports the failure, if it is one.
opening.catch(() => undefined);

/** JSON, as IPC has no bigint. */
const plain = ({ id, name, data }) => toJson({ id, name, data });

/**
 * What one caller does at a time; false when there is nothing left to be done. Looking at `data` is part of it, so that nobody gains
 * by not having parsed it.
 */
const OPERATIONS = {
  async get(contestant) {
    const n = anyNumber();
    const { name, data } = await contestant.get(seededId(n));
    // Those of the upper half are renamed by updates.
    if ((name !== `Person ${n}` && n < SEEDED / 2) || data.number !== n)
      throw new Error(`get answered "${name}" for person ${n}.`);
  },
  async create(contestant) {
    const person = personOf(anyNumber(), { exact: contestant.takesBigint === true });
    const { id, name, data } = await contestant.create(person);
    if (!id || name !== person.name || data.number !== person.data.number) {
      throw new Error(`create answered "${name}" for ${person.name}.`);
    }
  },
  /** Each caller renames people of its own, of the upper half, so that the last name it gave is the one that is stored. */
  async update(contestant, turn, caller) {
    const { callers, tag, renamed } = turn;
    const mine = Math.floor(SEEDED / 2 / callers);
    const n = SEEDED / 2 + Math.floor(Math.random() * mine) * callers + caller;
    const name = `Renamed ${tag} ${caller} ${(turn.count = (turn.count ?? 0) + 1)}`;
    const answered = await contestant.update(seededId(n), name);
    if (answered.name !== name || answered.data.number !== n)
      throw new Error(`update answered "${answered.name}" for "${name}".`);
    renamed[caller] = { id: seededId(n), name };
  },
  async remove(contestant, turn) {
    if (turn.next >= turn.removable) return false;
    await contestant.remove(removableId(turn.next++));
  },
};

answerParent(
  {
    open: async () => {
      const { url, takesBigint = false } = await opening;
      return { url, takesBigint };
    },
    get: async (id) => plain(await (await opening).get(id)),
    create: async (n) => {
      const contestant = await opening;
      return plain(await contestant.create(personOf(n, { exact: contestant.takesBigint === true })));
    },
    update: async ({ id, name }) => plain(await (await opening).update(id, name)),
    remove: async (id) => void (await (await opening).remove(id)),
    startProfile,
    stopProfile,
    cpuMicros() {
      const { user, system } = process.cpuUsage();
      return user + system;
    },
    /**
     * `callers` callers, each beginning anew as soon as it has its answer, for `ms` milliseconds.
     *
     * @param tag of the names that an update gives
     * @param removable how many people there are to be removed
     */
    async turn({ operation, ms, callers, tag, removable }) {
      const contestant = await opening;
      const act = OPERATIONS[operation];
      const turn = { callers, tag, removable, next: 0, renamed: [] };
      const begin = performance.now();
      let operations = 0;
      const call = async (caller) => {
        while (performance.now() < begin + ms) {
          if ((await act(contestant, turn, caller)) === false) return;
          operations++;
        }
      };
      await Promise.all(Array.from({ length: callers }, (_, caller) => call(caller)));
      return { operations, seconds: (performance.now() - begin) / 1000, renamed: turn.renamed };
    },
  },
  async () => (await opening).close(),
);
