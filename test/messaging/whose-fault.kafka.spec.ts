import {
  type ArgumentsHost,
  Catch,
  Controller,
  Logger,
  type RpcExceptionFilter,
  type Type,
  UseFilters,
} from '@nestjs/common';
import { jest } from '@jest/globals';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { throwError } from 'rxjs';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { BATCHABLE } from '../../src/messaging/kafka.transport.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { smallDisk } from '../people/whose-fault.cases.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import {
  counters,
  createCountersDatabase,
  type MessagesHost,
  ParsedValue,
  startMessagesHost,
} from '../support/messages-host.js';
import { onServer, type TestDatabase } from '../support/test-database.js';

interface What {
  what: 'good' | 'call' | 'kill' | 'refused';
  name: string;
  filler?: string;
}

/** What becomes of a failure at the host: nothing of what it was is left. */
@Catch()
class HostFilter implements RpcExceptionFilter {
  catch(_: unknown, host: ArgumentsHost) {
    return throwError(() => ({ status: 'failed', of: host.getType() }));
  }
}

let calls: string[] = [];

async function take({ what, name, filler = '' }: What): Promise<{ counted: string }> {
  calls.push(name);
  const transaction = currentTransaction()!;
  if (what === 'call') await fetch('http://127.0.0.1:9/');
  if (what === 'kill') await transaction.query({ text: 'SELECT pg_terminate_backend(pg_backend_pid())' });
  const text = `INSERT INTO counters (name, value, filler) VALUES ($1, $2, $3)`;
  await transaction.query({ text, values: [name, what === 'refused' ? -1 : 1, filler] });
  return { counted: name };
}

/** A handler in a unit of work of the interceptor, shared or not, or one that begins it itself, behind a filter. */
function controllerOf(
  topic: string,
  how: 'batched' | 'alone' | 'by itself',
  filter: Type<RpcExceptionFilter> | undefined,
) {
  const filters = filter ? [UseFilters(filter)] : [];
  const decorate = (target: Type) => filters.reduce((made, filterOf) => (filterOf(made), made), target);
  if (how === 'by itself') {
    @Controller()
    class ByItself {
      constructor(private readonly transactions: TransactionRunner) {}
      @MessagePattern(topic)
      handle(@Payload(ParsedValue) value: What) {
        return this.transactions.run({}, () => take(value));
      }
    }
    return decorate(ByItself);
  }
  @Controller()
  class Handled {
    @MessagePattern(topic, how === 'batched' ? BATCHABLE : {})
    @Transactional()
    handle(@Payload(ParsedValue) value: What) {
      return take(value);
    }
  }
  return decorate(Handled);
}

let database: TestDatabase;
let host: MessagesHost;
let topic: string;
const MAX_ATTEMPTS = 3;

async function start(
  how: Parameters<typeof controllerOf>[1],
  filter?: Type<RpcExceptionFilter>,
): Promise<void> {
  topic = `whose-fault-${randomUUID()}`;
  host = await startMessagesHost(database, {
    controllers: [controllerOf(topic, how, filter)],
    transport: { maxAttempts: MAX_ATTEMPTS },
  });
}
const send = (key: string, what: What['what'], filler?: string) =>
  peer.emit(topic, { key, value: JSON.stringify({ what, name: key, filler } satisfies Partial<What>) });
const letters = () =>
  database.query<{ key: string; code: string; message: string; attempts: number }>(
    `SELECT convert_from(key, 'UTF8') AS key, code, message, attempts FROM message_dead_letter ORDER BY 1`,
  );
const counted = async (prefix: string) =>
  Object.keys(await counters(database)).filter((name) => name.startsWith(prefix)).length;

const peer = duringTests(() => connectPeer());
beforeEach(async () => {
  calls = [];
  database = await createCountersDatabase();
  await database.query('ALTER TABLE counters ADD filler text, ADD CONSTRAINT no_debts CHECK (value > 0)');
});
afterEach(async () => {
  await host.app.close();
  await database.drop();
});

describe.each(['batched', 'alone', 'by itself'] as const)('a message of a handler that is run %s', (how) => {
  it.each<[string, Type<RpcExceptionFilter> | undefined]>([
    ['the filter of this package', MessageErrorFilter],
    ['Nest’s own filter', undefined],
    ['a filter of the host', HostFilter],
  ])(
    'is tried a few times when it fails by its own doing, and once when the table refuses it, and stops no other, behind %s',
    async (_, filter) => {
      await start(how, filter);
      await send('a call', 'call');
      await send('a kill', 'kill');
      await send('a refusal', 'refused');
      for (let n = 0; n < 20; n++) await send(`good ${n}`, 'good');
      await eventually(async () => (await letters()).length === 3, 20_000);
      await eventually(async () => (await counted('good')) === 20);
      const found = await letters();
      // One that is put back at a batch's end is called again, which is no attempt of its own.
      expect(found).toMatchObject([
        { key: 'a call', attempts: MAX_ATTEMPTS },
        { key: 'a kill', code: 'DATABASE_UNAVAILABLE', attempts: MAX_ATTEMPTS },
        { key: 'a refusal', code: 'DATABASE_REFUSED', attempts: 1 },
      ]);
      expect(found[2]!.message).toContain('no_debts');
      expect(host.transport.unavailableReason).toBeUndefined();
    },
  );
});

describe('what the server can not do now leaves messages in their place, and none is a dead letter', () => {
  const expectToWaitFor = async (
    begin: () => Promise<unknown>,
    end: () => Promise<unknown>,
    filler?: string,
    // Each has been tried more often than it may fail for a reason of its own.
    isFelt: () => unknown = () =>
      calls.filter((name) => name === 'wait 0').length > 2 * MAX_ATTEMPTS || host.transport.unavailableReason,
  ) => {
    await start('batched');
    await send('before', 'good');
    await eventually(async () => (await counted('before')) === 1);
    await begin();
    for (let n = 0; n < 30; n++) await send(`wait ${n}`, 'good', filler);
    await eventually(isFelt, 30_000);
    expect(await letters()).toEqual([]);
    await end();
    await eventually(async () => (await counted('wait')) === 30, 40_000);
    expect(await letters()).toEqual([]);
  };
  const name = () => new URL(database.url).pathname.slice(1);
  const newSessions = () =>
    database.query(
      `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nestjs-people'`,
    );

  it('a table that a deployment has yet to make', () =>
    expectToWaitFor(
      () => database.query('ALTER TABLE counters RENAME TO away'),
      () => database.query('ALTER TABLE away RENAME TO counters'),
    ));

  it('a server that takes no writes', () =>
    expectToWaitFor(
      async () => {
        await onServer((query) => query(`ALTER DATABASE ${name()} SET default_transaction_read_only = on`));
        await newSessions();
      },
      // Nobody ends the sessions that were begun meanwhile.
      () => onServer((query) => query(`ALTER DATABASE ${name()} RESET default_transaction_read_only`)),
      undefined,
      // Nothing more is begun until it does.
      () => calls.some((name) => name.startsWith('wait')),
    ));

  it('a full disk is told to whoever waits for a reply as what it is, and that it may be sent again', async () => {
    await start('batched', MessageErrorFilter);
    const logged = jest.spyOn(Logger.prototype, 'error');
    const disk = await smallDisk(database);
    if (!disk) return;
    await database.query(`ALTER TABLE counters SET TABLESPACE ${disk.name}`);
    await database.query(`CREATE TABLE filler (text text) TABLESPACE ${disk.name}`);
    await expect((async () => { for (;;) await database.query(`INSERT INTO filler SELECT md5(n::text) FROM generate_series(1, 100) n`); })()).rejects.toMatchObject({ code: '53100' }); // prettier-ignore
    const value = JSON.stringify({ what: 'good', name: 'asked', filler: randomUUID().repeat(100) });
    const { error } = await peer.ask(topic, value, { key: 'asked' });
    expect(error).toMatchObject({ code: 'DATABASE_UNAVAILABLE', retryable: true });
    expect(logged).not.toHaveBeenCalled();
    await database.query('DROP TABLE filler');
    expect((await peer.ask(topic, value, { key: 'asked' })).error).toBeUndefined();
    await database.query('ALTER TABLE counters SET TABLESPACE pg_default');
    await disk.remove();
  });

  it('a full disk', async () => {
    const disk = await smallDisk(database);
    if (!disk) return start('batched');
    const fill = async () => {
      await database.query(`ALTER TABLE counters SET TABLESPACE ${disk.name}`);
      for (let n = 0; ; n++)
        await database.query(`INSERT INTO counters VALUES ($1, 1, repeat(md5($1), 100))`, [`filler ${n}`]);
    };
    await expectToWaitFor(
      () => expect(fill()).rejects.toMatchObject({ code: '53100' }),
      () => database.query('ALTER TABLE counters SET TABLESPACE pg_default'),
      randomUUID().repeat(100),
    );
    await disk.remove();
  });
});
