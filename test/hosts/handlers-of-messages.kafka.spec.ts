import {
  type ArgumentsHost,
  Catch,
  Controller,
  NotFoundException,
  type RpcExceptionFilter,
  type Type,
  UseFilters,
  ValidationPipe,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { EventPattern, MessagePattern, Payload, RpcException } from '@nestjs/microservices';
import { IsInt, IsString } from 'class-validator';
import { randomUUID } from 'node:crypto';
import { EMPTY, type Observable, of, throwError } from 'rxjs';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { BATCHABLE, KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { PersonNotFoundError } from '../../src/people/people.errors.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, connectPeer } from '../support/kafka.js';
import { count, counters, createCountersDatabase, startConsumingHost } from '../support/messages-host.js';

const run = randomUUID();
const U64 = '18446744073709551615';

/** What a filter of a host makes of whatever it catches. */
const making = (make: () => Observable<unknown>): Type<RpcExceptionFilter> => {
  @Catch()
  class HostFilter implements RpcExceptionFilter {
    catch(_: unknown, __: ArgumentsHost) {
      return make() as Observable<never>;
    }
  }
  return HostFilter;
};
const FILTERS: [string, Type<RpcExceptionFilter> | undefined][] = [
  ['no filter', undefined],
  ['the filter of this package', MessageErrorFilter],
  ['one that makes another error of it', making(() => throwError(() => new RpcException('oops')))],
  ['one that makes a text of it', making(() => throwError(() => '"oops"'))],
  ['one that gives a value instead', making(() => of('told by the host'))],
  ['one that gives nothing instead', making(() => EMPTY)],
];
const WAYS = ['in a unit of work', 'together in a unit of work', 'by itself'] as const;
const topicOf = (how: number, way: string) => `of-${how}-${way.replaceAll(' ', '-')}-${run}`;

/** The messages of which a conflict was met: the next time there is none. */
const collided = new Set<string>();

async function take(what: string, name: string): Promise<{ taken: string }> {
  await count(name);
  if (what === 'missing') throw new NotFoundException('There is no such order.');
  if (what === 'nobody') throw new PersonNotFoundError('of nobody');
  if (what === 'bug') throw new TypeError('undefined is not an order');
  if (what === 'conflict' && !collided.has(name)) {
    collided.add(name);
    await currentTransaction()!.query({ text: `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$` });
  }
  return { taken: name };
}

function controllerOf(how: number, way: (typeof WAYS)[number], filter: Type<RpcExceptionFilter> | undefined) {
  const topic = topicOf(how, way);
  @Controller()
  class InUnit {
    @MessagePattern(topic, way === WAYS[1] ? BATCHABLE : {})
    @Transactional({ maxAttempts: 1 })
    handle(@Payload() { what, name }: { what: string; name: string }) {
      return take(what, name);
    }
  }
  @Controller()
  class ByItself {
    constructor(private readonly transactions: TransactionRunner) {}
    @MessagePattern(topic)
    handle(@Payload() { what, name }: { what: string; name: string }) {
      return this.transactions.run({ maxAttempts: 1 }, () => take(what, name));
    }
  }
  const controller: Type = way === WAYS[2] ? ByItself : InUnit;
  if (filter) UseFilters(filter)(controller);
  return controller;
}

class OrderDto {
  @IsString()
  name!: string;
  @IsInt()
  pieces!: number;
  total() {
    return `${this.pieces} for ${this.name}`;
  }
}

/** With Nest's types a handler would have to take whatever comes. */
const OnEvent = EventPattern as (pattern: string, extras?: object) => MethodDecorator;

@Controller()
class EventsController {
  @OnEvent('orders')
  parsed() {
    return undefined;
  }

  @OnEvent('orders', { keepBinary: true })
  bytes() {
    return undefined;
  }
}

@Controller()
class FormsController {
  @MessagePattern(`dto-${run}`)
  dto(@Payload(new ValidationPipe({ transform: true })) order: OrderDto) {
    return { total: order.total() };
  }

  @MessagePattern(`bytes-${run}`, { keepBinary: true })
  bytes(@Payload() value: unknown) {
    return { bytes: Buffer.isBuffer(value) && value.toString() };
  }
}

const peer = duringTests(() => connectPeer());
beforeAll(() => peer.deleteTopics());
const database = duringTests(() => createCountersDatabase());
const host = duringTests(() =>
  startConsumingHost(database, {
    controllers: [
      FormsController,
      ...FILTERS.flatMap(([, filter], how) => WAYS.map((way) => controllerOf(how, way, filter))),
    ],
    imports: [PeopleModule.forRoot({ controllers: { http: false } })],
    transport: { maxAttempts: 2, batchHandlers: true },
  }),
);

interface Letter {
  key: string;
  code: string;
  attempts: number;
  cause: string;
}
const lettersOf = (topic: string) =>
  database.query<Letter & { [column: string]: unknown }>(
    `SELECT convert_from(key, 'UTF8') AS key, code, attempts, cause->0->>'message' AS cause FROM message_dead_letter WHERE topic = $1 ORDER BY key`,
    [topic],
  );

describe.each(FILTERS.map(([name, filter], how) => [name, how, filter] as const))(
  'behind %s',
  (name, how, filter) => {
    /** The name of what is not this package's error is its filter's. */
    const codeOfOthers: unknown = filter === MessageErrorFilter ? 'NOT_FOUND' : expect.any(String);

    // @trap filters make something else of an error, and nobody knows any more whether to try again
    it.each(WAYS)(
      'a conflict of a handler %s is tried again, and a dead letter has its true cause',
      async (way) => {
        const topic = topicOf(how, way);
        const nameOf = (what: string) => `${what} ${how} ${way}`;
        const messages = ['conflict', 'missing', 'nobody', 'bug'].map((what) => ({
          key: what,
          value: JSON.stringify({ what, name: nameOf(what) }),
        }));
        await peer.emitAll(topic, messages);
        const letters = await eventually(async () => {
          const found = await lettersOf(topic);
          return found.length === 3 && found;
        });
        expect(letters).toEqual([
          { key: 'bug', code: expect.any(String) as string, attempts: 2, cause: 'undefined is not an order' },
          { key: 'missing', code: codeOfOthers, attempts: 1, cause: 'There is no such order.' },
          { key: 'nobody', code: 'PERSON_NOT_FOUND', attempts: 1, cause: 'No person has the id of nobody.' },
        ]);
        await eventually(async () => (await counters(database))[nameOf('conflict')] === 1);
        const applied = Object.keys(await counters(database)).filter((each) =>
          each.endsWith(` ${how} ${way}`),
        );
        expect(applied).toEqual([nameOf('conflict')]);

        // Who waits for an answer is told what the filter makes of it, but never that nothing was wrong.
        const { error, value } = await peer.ask(
          topic,
          JSON.stringify({ what: 'missing', name: nameOf('asked') }),
        );
        if (name.includes('value')) expect(value).toBe('told by the host');
        else expect(error).toBeDefined();
      },
    );
  },
);

describe('the values of messages', () => {
  it('are parsed for a host’s handler, validated as its class says, and bytes where it asks for them', async () => {
    const { value } = await peer.ask(`dto-${run}`, '{"name":"Ada","pieces":3}');
    expect(JSON.parse(value!)).toEqual({ total: '3 for Ada' });
    expect((await peer.ask(`dto-${run}`, '{"name":"Ada","pieces":"many"}')).error).toBeDefined();
    const bytes = await peer.ask(`bytes-${run}`, `{"n":${U64}}`);
    expect(JSON.parse(bytes.value!)).toEqual({ bytes: `{"n":${U64}}` });
  });

  it('are bytes for those of people, which keep every digit', async () => {
    const person = { name: 'Ada', data: { n: 'digits' } };
    const json = JSON.stringify(person).replace('"digits"', U64);
    const created = await peer.ask('people.create', json);
    expect(created.value).toContain(U64);
    const { id } = JSON.parse(created.value!) as { id: string };
    expect((await peer.ask('people.get', JSON.stringify({ id }))).value).toBe(created.value);
    expect(host.transport.unavailableReason).toBeUndefined();
  });

  it('are given to all handlers of an event in one form, or the application does not start', async () => {
    const module = { module: class {}, controllers: [EventsController] };
    const app = await NestFactory.create(module, new ExpressAdapter(), { logger: false });
    const strategy = new KafkaTransport({
      client: { brokers: brokers() },
      groupId: run,
      concurrency: 1,
      topics: { partitions: 1, replication: undefined },
    });
    app.connectMicroservice({ strategy });
    await expect(app.startAllMicroservices()).rejects.toThrow('some handlers of orders have keepBinary');
  });
});
