import { Controller, UseFilters } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import type { KafkaMessage } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { concat, EMPTY, finalize, generate, interval, NEVER, of, throwError } from 'rxjs';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer, errorOf } from '../support/kafka.js';
import {
  codeOfLetter,
  count,
  counters,
  createCountersDatabase,
  startConsumingHost,
} from '../support/messages-host.js';

const MOST_VALUES = 3;
const HANDLER_MS = 300;
/** Above that, and so what ends a unit of work that nobody waits for any more. */
const UNIT_MS = 600;

let ended = 0;
let gate: Promise<void>;
let open: () => void;

interface Outcome {
  gives: () => unknown;
  /** The values of the reply's records. */
  values?: (string | null)[];
  /** Of the error, told to who waits; without anybody it is a dead letter's. */
  code?: string;
}
const nothing = { values: [null] };
const late = { code: 'HANDLER_TIMEOUT' };
const internal = { code: 'INTERNAL_ERROR' };

/** Not all that is thrown is an Error. */
const throwing = (value: unknown) => () => {
  throw value as Error;
};

const ODD: Record<string, Outcome> = {
  'gives undefined': { gives: () => undefined, ...nothing },
  'gives null': { gives: () => null, ...nothing },
  'ends without a value': { gives: () => EMPTY, ...nothing },
  'gives a value': { gives: () => ({ a: 1 }), values: ['{"a":1}'] },
  'gives a stream of values': { gives: () => of('one', { two: 2 }, 'three'), values: ['one', '{"two":2}', 'three'] },
  'gives a value twice': { gives: () => of('same', 'same'), values: ['same', 'same'] },
  'promises a stream': { gives: () => Promise.resolve(of('one', 'two')), values: ['one', 'two'] },
  'keeps its promise twice': { gives: () => new Promise((resolve) => (resolve('first'), resolve('second'))), values: ['first'] },
  'gives a value, then fails': { gives: () => concat(of('one'), throwError(() => new Error('then'))), ...internal },
  'throws a text': { gives: throwing('text'), ...internal },
  'throws null': { gives: throwing(null), ...internal },
  'throws undefined': { gives: throwing(undefined), ...internal },
  'breaks its promise later': { gives: () => new Promise((_, reject) => setImmediate(() => reject(new Error('later')))), ...internal },
  'never gives anything': { gives: () => NEVER, ...late },
  'never keeps its promise': { gives: () => new Promise(() => undefined), ...late },
  'gives values for ever': { gives: () => interval(20).pipe(finalize(() => ended++)), code: 'TOO_MANY_VALUES' },
  'gives a value, then nothing for ever': { gives: () => concat(of('one'), NEVER).pipe(finalize(() => ended++)), ...late },
  'gives values without end, at once': { gives: () => generate(0, () => true, (n) => n + 1), code: 'TOO_MANY_VALUES' },
}; // prettier-ignore
/** Whoever waits for no answer waits for no values either. */
const AS_EVENT: Partial<Record<string, Outcome>> = {
  'gives values for ever': { ...ODD['gives values for ever']!, ...late },
};
const NO_EVENT = ['gives values without end, at once'];
/** Its unit of work has collected the values before this transport sees them. */
const NOT_TOGETHER = ['gives values for ever', 'gives values without end, at once'];

describe.each(KAFKA_CLIENTS)('a handler of a host, by %s, that', (driver) => {
  const run = randomUUID();
  const plain = `odd-${run}`;
  const transactional = `odd-in-unit-${run}`;
  const gated = `gated-${run}`;
  const elsewhere = `beside-${run}`;
  const replies = `answers-${run}`;
  const answers: KafkaMessage[] = [];

  @Controller()
  @UseFilters(MessageErrorFilter)
  class Handlers {
    @MessagePattern(plain)
    plain(@Payload() { what }: { what: string }) {
      return ODD[what]!.gives();
    }

    @MessagePattern(transactional)
    @Transactional({ timeoutMs: UNIT_MS })
    async transactional(@Payload() { what, name }: { what: string; name: string }): Promise<unknown> {
      await count(name);
      return ODD[what]!.gives();
    }

    @MessagePattern(gated)
    @Transactional()
    async gated(@Payload() { name }: { name: string }) {
      await gate;
      try {
        await count(name);
      } finally {
        ended++;
      }
      return 'late';
    }

    @MessagePattern(elsewhere)
    beside(@Payload() input: unknown) {
      return input;
    }
  }

  const peer = duringTests(() => connectPeer());
  beforeAll(() => peer.createTopics([plain, transactional, gated, elsewhere, replies]));
  const database = duringTests(() => createCountersDatabase());
  const host = duringTests(() =>
    startConsumingHost(database, {
      controllers: [Handlers],
      transport: { driver, maxAttempts: 1, handlerTimeoutMs: HANDLER_MS, maxReplyValues: MOST_VALUES },
    }),
  );
  beforeAll(async () => {
    await peer.consume([replies], (answer) => answers.push(answer));
  });
  beforeEach(() => {
    ended = 0;
    gate = new Promise((resolve) => (open = resolve));
  });

  const answersTo = (id: string) =>
    answers.filter(({ headers }) => String(headers!.kafka_correlationId) === id);
  const isLast = ({ headers }: KafkaMessage) => headers!['kafka_nest-is-disposed'] !== undefined;
  const wholeAnswer = (id: string) =>
    eventually(() => {
      const found = answersTo(id);
      return found.some(isLast) && found;
    });
  const ask = async (topic: string, what: string, headers: Record<string, string> = {}) => {
    const [id, name] = [randomUUID(), randomUUID()];
    const asking = { kafka_correlationId: id, kafka_replyTopic: replies, ...headers };
    await peer.emit(topic, { key: name, value: JSON.stringify({ what, name }), headers: asking });
    return { id, name };
  };
  const expectBystander = async () => {
    const { value } = await peer.ask(elsewhere, '{"by":"stander"}');
    expect(JSON.parse(value!)).toEqual({ by: 'stander' });
    expect(host.transport.unavailableReason).toBeUndefined();
  };

  // @trap a handler that gives nothing, a stream, a value twice, or never ends
  it.each(Object.keys(ODD))('%s: its request has one answer', async (what) => {
    const { values, code } = ODD[what]!;
    const { id } = await ask(plain, what);
    await expectBystander();
    const found = await wholeAnswer(id);
    if (code) expect(found.map(errorOf)).toMatchObject([{ code }]);
    else expect(found.map(({ value }) => value?.toString() ?? null)).toEqual(values);
    expect(found.filter(isLast)).toEqual([found.at(-1)]);
    // A stream that nobody waits for is not read on.
    if (/for ever$/.test(what)) await eventually(() => ended === 1);
  });

  it.each(Object.keys(ODD).filter((what) => !NOT_TOGETHER.includes(what)))(
    '%s, in a unit of work: it is applied if it is answered well',
    async (what) => {
      const { values, code } = ODD[what]!;
      const { id, name } = await ask(transactional, what);
      await expectBystander();
      const found = await wholeAnswer(id);
      if (code) expect(found.map(errorOf)).toMatchObject([{ code }]);
      else expect(found.map(({ value }) => value?.toString() ?? null)).toEqual(values);
      expect((await counters(database))[name]).toBe(code ? undefined : 1);
    },
  );

  it.each(Object.keys(ODD).filter((what) => !NO_EVENT.includes(what)))(
    '%s: an event of it is handled, or a dead letter',
    async (what) => {
      const { code } = AS_EVENT[what] ?? ODD[what]!;
      const name = randomUUID();
      await peer.emit(plain, { key: name, value: JSON.stringify({ what, name }) });
      await peer.emit(plain, { key: name, value: '{"what":"gives a value"}' });
      await expectBystander();
      if (code) expect(await eventually(() => codeOfLetter(database, name))).toBe(code);
      const { id } = await ask(plain, 'gives a value');
      await wholeAnswer(id);
      if (!code) expect(await codeOfLetter(database, name)).toBeUndefined();
    },
  );

  // @trap a handler that ends after its time
  it('ends after its time changes nothing any more, as its sender was told', async () => {
    const headers = { 'message-id': randomUUID() };
    const { id, name } = await ask(gated, '', headers);
    expect((await wholeAnswer(id)).map(errorOf)).toMatchObject([late]);
    open();
    await eventually(() => ended === 1);
    const busy = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()`;
    await eventually(async () => (await database.query(busy)).length === 0);
    expect((await counters(database))[name]).toBeUndefined();
    expect(answersTo(id)).toHaveLength(1);
  });
});
