import { readFileSync } from 'node:fs';
import pg from 'pg';
import { writableClient } from '../../src/database/hosts/writable-client.js';
import { assertPgInternals } from '../../src/database/pg/self-test.js';
import { TransactionsModule } from '../../src/transactions/transactions.module.js';

// The pg that is installed, which is the newest of the peer range; `.ci/matrix.mjs` runs this with the oldest. Where npm has a newer
// one, `npm install --no-save pg@latest` and this file again say whether it will do.
const { Client } = pg as unknown as { Client: ClientClass };
type Query = new (...parameters: unknown[]) => object;
type ClientClass = (new (config: object) => Record<string, unknown>) & { Query: Query };

const { peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  peerDependencies: { pg: string };
};

it('takes the pg that is installed, and a pool of it', () => {
  expect(() => assertPgInternals(pg)).not.toThrow();
  expect(() => assertPgInternals(new pg.Pool())).not.toThrow();
});

it('takes the clients of several hosts', () => {
  const several = writableClient(['postgres://one/people', 'postgres://two/people']);
  expect(() => assertPgInternals({ Client: several })).not.toThrow();
});

it('takes a pg without a pipeline mode, as it was before 8.23', () => {
  const Older = withClient({ pipeline: undefined });
  expect(() => assertPgInternals({ Client: Older })).not.toThrow();
});

it('makes no connection, and leaves nothing behind', () => {
  const handles = process.getActiveResourcesInfo().length;
  assertPgInternals(pg);
  expect(process.getActiveResourcesInfo().length).toBe(handles);
});

it.each([
  ['has no clients', {}, 'Client'],
  ['has clients without a Query', { Client: withQuery(undefined) }, 'Query.prepare'],
  [
    'has another way to tell the active query',
    { Client: withClient({ _getActiveQuery: 1 }) },
    '_getActiveQuery',
  ],
  [
    'can not tell what a transaction is in',
    { Client: withClient({ getTransactionStatus: undefined }) },
    'Client.getTransactionStatus',
  ],
  ['keeps what is prepared elsewhere', { Client: withoutPrepared() }, 'Client.connection.parsedStatements'],
])('refuses a pg that %s', (_, other, missing) => {
  expect(() => assertPgInternals(other)).toThrow(missing);
  expect(() => assertPgInternals(other)).toThrow(
    `Supported is pg ${peerDependencies.pg}: install such a version (npm install pg@${peerDependencies.pg})`,
  );
});

it.each<[string, (Base: Query) => Query]>([
  [
    'ends prepare() in another way',
    (Base) =>
      class extends Base {
        prepare(connection: { sync: () => void }) {
          connection.sync();
        }
      },
  ],
  [
    'keeps its name out of reach',
    (Base) =>
      class extends Base {
        constructor(...parameters: unknown[]) {
          super(...parameters);
          const { name } = parameters[0] as { name?: string };
          Object.defineProperty(this, 'name', { value: name });
        }
      },
  ],
])('refuses a pg whose Query %s', (_, change) => {
  const other = { Client: withQuery(change(Client.Query)) };
  expect(() => assertPgInternals(other)).toThrow('a Query whose messages can be sent with those of others');
});

it('is asked when the module starts', async () => {
  const dataSource = { subscribers: [], driver: { master: { Client: withQuery(undefined) } } };
  const module = new TransactionsModule({ dataSource, settings: {} } as never);
  await expect(module.onModuleInit()).rejects.toThrow('This pg is none that nestjs-people can work with');
});

function withQuery(Query: Query | undefined): ClientClass {
  return Object.assign(class extends Client {}, { Query: Query! });
}

function withClient(properties: object): ClientClass {
  return class extends Client {
    constructor(config: object) {
      super(config);
      Object.assign(this, properties);
    }
  };
}

function withoutPrepared(): ClientClass {
  return class extends Client {
    constructor(config: object) {
      super(config);
      delete (this.connection as { parsedStatements?: object }).parsedStatements;
    }
  };
}
