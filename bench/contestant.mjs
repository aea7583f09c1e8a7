import { anyNumber, personOf, seededId } from './people.mjs';
import { answerParent } from './process.mjs';

// The process of one contestant: argument 1 is its file, 2 and 3 are the database and the size of its pool.
const [file, databaseUrl, poolSize] = process.argv.slice(2);
const { open } = await import(file);
const opening = open({ databaseUrl, poolSize: Number(poolSize) });
// The answer to `open` reports the failure, if it is one.
opening.catch(() => undefined);

const plain = ({ id, name, data }) => ({ id, name, data });

/** What one caller does at a time. Looking at `data` is part of it, so that nobody gains by not having parsed it. */
const OPERATIONS = {
  async get(contestant) {
    const n = anyNumber();
    const { name, data } = await contestant.get(seededId(n));
    if (name !== `Person ${n}` || data.number !== n)
      throw new Error(`get answered "${name}" for person ${n}.`);
  },
  async create(contestant) {
    const person = personOf(anyNumber());
    const { id, name, data } = await contestant.create(person);
    if (!id || name !== person.name || data.number !== person.data.number) {
      throw new Error(`create answered "${name}" for ${person.name}.`);
    }
  },
};

answerParent(
  {
    open: async () => ({ url: (await opening).url }),
    get: async (id) => plain(await (await opening).get(id)),
    create: async (person) => plain(await (await opening).create(person)),
    cpuMicros() {
      const { user, system } = process.cpuUsage();
      return user + system;
    },
    /** `callers` callers, each beginning anew as soon as it has its answer, for `ms` milliseconds. */
    async turn({ operation, ms, callers }) {
      const contestant = await opening;
      const act = OPERATIONS[operation];
      const begin = performance.now();
      let operations = 0;
      const call = async () => {
        while (performance.now() < begin + ms) {
          await act(contestant);
          operations++;
        }
      };
      await Promise.all(Array.from({ length: callers }, call));
      return { operations, seconds: (performance.now() - begin) / 1000 };
    },
  },
  async () => (await opening).close(),
);
