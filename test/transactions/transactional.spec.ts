import { Controller, Get, Injectable, Param, Post } from '@nestjs/common';
import { EntityManager } from 'typeorm';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import { Transactional, TransactionManager } from '../../src/transactions/transactional.decorator.js';
import { ADAPTERS, type Host, startHost } from '../support/transactions-host.js';
import { watchRetries } from '../support/retries.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
let id: string;
beforeAll(async () => {
  database = await createDatabase();
});
beforeEach(async () => {
  [{ id }] = (await database.query<{ id: string }>(
    `INSERT INTO people (name) VALUES ('Ada') RETURNING id`,
  )) as [{ id: string }];
});
afterAll(() => database.drop());

const REPEATABLE = { isolationLevel: 'REPEATABLE READ' } as const;
/** What every method of these tests does: an update that collides in its first `conflicts` attempts. */
async function collide(conflicts: number, name: string): Promise<void> {
  const transaction = currentTransaction()!;
  await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
  if (transaction.attempt <= conflicts)
    await database.query(`UPDATE people SET name = 'other' WHERE id = $1`, [id]);
  await transaction.query({ text: 'UPDATE people SET name = $2 WHERE id = $1', values: [id, name] });
}
const nameOf = async () =>
  (await database.query<{ name: string }>('SELECT name FROM people WHERE id = $1', [id]))[0]!.name;

@Injectable()
class Service {
  runs = 0;

  @Transactional(REPEATABLE)
  async rename(name: string, conflicts = 0): Promise<string> {
    this.runs++;
    await collide(conflicts, name);
    return name;
  }

  @Transactional(REPEATABLE)
  async mutate(input: { n: number; list: number[]; at: Date; map: Map<string, number>; extra?: string }) {
    input.n++;
    input.list.push(input.n);
    input.at.setTime(input.at.getTime() + 1);
    input.map.set(String(input.n), input.n);
    if (input.n === 1) input.extra = 'left behind';
    await collide(2, JSON.stringify([input.n, input.list, input.at.getTime(), [...input.map]]));
    return input;
  }

  @Transactional(REPEATABLE)
  async withManager(name: string, @TransactionManager() manager?: EntityManager): Promise<boolean> {
    await collide(1, name);
    return manager === currentTransaction()!.manager;
  }

  @Transactional({ conflictKey: (key: string) => `key of ${key}` })
  async key(_key: string): Promise<string | undefined> {
    return currentTransaction()!.conflictKey;
  }

  @Transactional({ propagation: 'MANDATORY' })
  async needsOne(): Promise<string> {
    return currentTransaction()!.id;
  }

  @Transactional()
  async calls(): Promise<string[]> {
    return [currentTransaction()!.id, await this.needsOne()];
  }

  @Transactional()
  async streams(): Promise<AsyncIterable<number>> {
    return (async function* () {
      yield 1;
    })();
  }
}

@Controller('things')
class ThingsController {
  @Post(':name')
  @Transactional(REPEATABLE)
  async above(@Param('name') name: string, @TransactionManager() manager: EntityManager): Promise<object> {
    await collide(1, name);
    return { own: manager === currentTransaction()!.manager, attempt: currentTransaction()!.attempt };
  }

  @Transactional({ conflictKey: (name: string) => name })
  @Get(':name')
  async below(@Param('name') name: string, @TransactionManager() manager: EntityManager): Promise<object> {
    return { key: currentTransaction()!.conflictKey, own: manager === currentTransaction()!.manager, name };
  }
}

describe.each(ADAPTERS)('on %s, @Transactional', (adapter) => {
  let host: Host;
  beforeAll(async () => {
    host = await startHost({ database, adapter, controllers: [ThingsController], providers: [Service] });
  });
  afterEach(() => expect(host.borrowed()).toBe(0));
  afterAll(() => host.close());

  it('runs a provider’s method in a unit of work that repeats it', async () => {
    const service = host.get(Service);
    const before = service.runs;
    const { result, retries } = await watchRetries(() => service.rename('mine', 2));
    expect(result).toEqual({ status: 'fulfilled', value: 'mine' });
    expect(retries).toHaveLength(2);
    expect(service.runs - before).toBe(3);
    expect(await nameOf()).toBe('mine');
  });

  it('gives each attempt its arguments as they were, and the caller what the last one made of them', async () => {
    const input = { n: 0, list: [0], at: new Date(0), map: new Map([['0', 0]]) };
    expect(await host.get(Service).mutate(input)).toBe(input);
    expect(JSON.parse(await nameOf())).toEqual([1, [0, 1], 1, [['0', 0], ['1', 1]]]); // prettier-ignore
    expect(input).toEqual({ n: 1, list: [0, 1], at: new Date(1), map: new Map([['0', 0], ['1', 1]]), extra: 'left behind' }); // prettier-ignore
  });

  it('refuses arguments too large to be put back', async () => {
    const list = Array.from({ length: 100_001 }, () => ({}));
    await expect(host.get(Service).mutate({ list } as never)).rejects.toThrow('maxAttempts: 1');
  });

  it('hands a provider’s method the manager of its attempt', async () => {
    expect(await host.get(Service).withManager('managed')).toBe(true);
  });

  it('makes the key of the method’s arguments', async () => {
    expect(await host.get(Service).key('x')).toBe('key of x');
  });

  it('joins what it is called in, and is refused without where it must join', async () => {
    const [outer, inner] = await host.get(Service).calls();
    expect(inner).toBe(outer);
    await expect(host.get(Service).needsOne()).rejects.toThrow(TransactionUsageError);
  });

  it('refuses a result that would be read after its end', async () => {
    await expect(host.get(Service).streams()).rejects.toThrow('returned a stream');
  });

  it('runs a handler in a unit of work, with the manager of each attempt among its parameters', async () => {
    const response = await host.request('/things/handled', { method: 'POST' });
    expect(response.status).toBe(201);
    expect(await response.json()).toEqual({ own: true, attempt: 2 });
    expect(await nameOf()).toBe('handled');
  });

  it('may stand above or below the route, and take the key from the handler’s parameters', async () => {
    const response = await host.request('/things/k');
    expect(await response.json()).toEqual({ key: 'k', own: true, name: 'k' });
  });
});

it('an object that Nest did not make is told so', async () => {
  await expect((async () => new Service().rename('x'))()).rejects.toThrow('the object was not made by Nest');
});

it.each([
  [{ maxAttempts: 11 }, 'maxAttempts'],
  [{ deferrable: true, readOnly: false }, 'deferrable'],
  [{ deferrable: true, isolationLevel: 'READ COMMITTED' as const }, 'deferrable'],
  [{ timeoutMs: -1 }, 'timeoutMs'],
])('%p is refused when the decorator is applied', (options, message) => {
  expect(() => {
    class Wrong {
      @Transactional(options)
      async method(): Promise<void> {}
    }
    return Wrong;
  }).toThrow(message);
});
