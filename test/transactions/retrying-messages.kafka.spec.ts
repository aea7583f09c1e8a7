import {
  type CallHandler,
  Controller,
  type ExecutionContext,
  type INestApplication,
  type NestInterceptor,
  type PipeTransform,
  Post,
  UseFilters,
  UseInterceptors,
} from '@nestjs/common';
import { type KafkaContext, MessagePattern, Payload, Transport } from '@nestjs/microservices';
import { logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { concat, defer, from, ignoreElements, type Observable, of } from 'rxjs';
import { MessageErrorFilter } from '../../src/errors/error-responses.js';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { brokers, KafkaPeer } from '../support/kafka.js';
import { startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

const run = randomUUID();
const COUNT = `count-${run}`;
const VALUES = `values-${run}`;
const COLLIDE = `collide-${run}`;
const TAKE_LONG = `take-long-${run}`;
const BUDGET = `budget-${run}`;
const ANSWERS = `answers-${run}`;
/** One for all hosts, so that none is given what another has handled; Nest adds the suffix by itself. */
const GROUP = `host-${run}-server`;
const HANDLED = [COUNT, VALUES, COLLIDE, TAKE_LONG, BUDGET];
/** A unit of work sends a heartbeat every three seconds at most. */
const BETWEEN_HEARTBEATS_MS = 3100;
const MODULE_TIMEOUT_MS = 15_000;

let host: TransactionsHost;
const peer = new KafkaPeer();
/** What handlers and heartbeats did, in order. */
let seen: string[] = [];
let deliveries = 0;
let beat: () => Promise<void>;

interface Input {
  name: string;
  /** How many attempts of each delivery meet a conflict, and of how many deliveries. */
  conflicts: number;
  deliveries?: number;
}

/** Our transport hands over the bytes as they came; Nest's own has parsed them. */
class ParsesBytes implements PipeTransform {
  transform(value: unknown): unknown {
    return Buffer.isBuffer(value) ? JSON.parse(value.toString()) : value;
  }
}

/** Sees the heartbeats that a handler's unit of work sends, apart from those of the transport. */
class WatchesHeartbeats implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler) {
    const kafka = context.switchToRpc().getContext<KafkaContext>();
    const send = kafka.getHeartbeat();
    kafka.getHeartbeat = () => async () => {
      seen.push('heartbeat');
      await beat();
      await send();
    };
    return next.handle();
  }
}

const attempted = () => seen.push(`attempt ${currentTransaction()!.attempt}`);

@Controller()
class CountersController {
  @Post('count')
  @MessagePattern(COUNT)
  @Transactional()
  async count(@Payload(ParsesBytes) input: Input) {
    attempted();
    input.name += '!';
    await host.count(input.name);
    await host.conflict(input.conflicts);
    return { counted: input.name };
  }

  @MessagePattern(VALUES)
  @Transactional()
  values(): Observable<string> {
    const { attempt } = currentTransaction()!;
    return concat(
      of(`first of attempt ${attempt}`),
      defer(() => from(host.conflict(1))).pipe(ignoreElements()),
      of(`second of attempt ${attempt}`),
    );
  }

  @MessagePattern(COLLIDE)
  @UseFilters(MessageErrorFilter)
  @Transactional()
  async collide(@Payload(ParsesBytes) input: Input) {
    attempted();
    if (currentTransaction()!.attempt === 1) deliveries++;
    await host.count(input.name);
    await host.conflict(deliveries <= (input.deliveries ?? Infinity) ? input.conflicts : 0);
  }

  @MessagePattern(TAKE_LONG)
  @UseFilters(MessageErrorFilter)
  @Transactional({ backoff: () => BETWEEN_HEARTBEATS_MS })
  @UseInterceptors(WatchesHeartbeats)
  async takeLong(@Payload(ParsesBytes) { conflicts }: Input) {
    attempted();
    await host.conflict(conflicts);
    return 'done';
  }

  @Post('budget')
  @MessagePattern(BUDGET)
  @Transactional()
  async budget() {
    const [row] = await currentTransaction()!.manager.query<{ ms: string }[]>(
      `SELECT setting AS ms FROM pg_settings WHERE name = 'statement_timeout'`,
    );
    return { ms: Number(row!.ms) };
  }
}

const withOurTransport = (app: INestApplication) =>
  app.connectMicroservice({
    strategy: new KafkaTransport({
      client: { brokers: brokers(), clientId: 'host' },
      groupId: GROUP,
      concurrency: 2,
      topics: { partitions: 1, replication: undefined },
    }),
  });

const withStockTransport = (app: INestApplication) =>
  app.connectMicroservice({
    transport: Transport.KAFKA,
    options: {
      client: { brokers: brokers(), clientId: 'host', logLevel: logLevel.NOTHING },
      consumer: { groupId: `host-${run}`, maxWaitTimeInMs: 100 },
    },
  });

beforeAll(async () => {
  await peer.connect();
  await peer.createTopics([...HANDLED, ANSWERS]);
});
beforeEach(() => {
  seen = [];
  deliveries = 0;
  beat = () => Promise.resolve();
});
afterAll(async () => {
  const ours = (await peer.admin.listTopics()).filter((topic) => topic.includes(run));
  await peer.admin.deleteTopics({ topics: ours });
  await peer.close();
});

const ask = (topic: string, input: Partial<Input> = {}) => peer.ask(topic, JSON.stringify(input));

/** Resolves when the host is given messages: a new group has none that were sent before. */
const startHost = async (
  connect: (app: INestApplication) => unknown,
  settings: { timeoutMs?: number } = {},
) => {
  host = await startTransactionsHost({ controllers: [CountersController], prepare: connect, settings });
  await eventually(async () => {
    const { groups } = await peer.admin.describeGroups([GROUP]);
    return groups[0]?.state === 'Stable';
  });
};

describe.each([
  ["Nest's own transport in a hybrid application", withStockTransport],
  ['our transport', withOurTransport],
])('a message handler behind %s', (_, connect) => {
  beforeAll(() => startHost(connect));
  afterAll(() => host.close());

  it('is repeated until it is committed, with the message as it was sent, and answered once', async () => {
    const reply = await ask(COUNT, { name: 'message', conflicts: 2 });
    expect(JSON.parse(reply.value!)).toEqual({ counted: 'message!' });
    expect(seen).toEqual(['attempt 1', 'attempt 2', 'attempt 3']);
    expect(await host.committed('message!')).toBe(1);
  });

  it('does the same for HTTP', async () => {
    const response = await host.post('/count', { name: 'request', conflicts: 2 });
    expect(await response.json()).toEqual({ counted: 'request!' });
    expect(seen).toEqual(['attempt 1', 'attempt 2', 'attempt 3']);
    expect(await host.committed('request!')).toBe(1);
  });

  it('whose attempts are used up is answered with an error that says so, and may be sent again', async () => {
    const { error } = await ask(COLLIDE, { name: 'used up', conflicts: 10 });
    expect(error).toEqual({
      code: 'TRANSACTION_RETRIES_EXHAUSTED',
      message:
        'The operation collided with others in each of its 10 attempts; nothing was changed, try again.',
      retryable: true,
    });
    expect(seen).toHaveLength(10);
    expect(await host.committed('used up')).toBeUndefined();
  });

  it('has twenty seconds, while HTTP has as long as it likes', async () => {
    const { value } = await ask(BUDGET);
    const { ms } = JSON.parse(value!) as { ms: number };
    expect(ms).toBeGreaterThan(0);
    expect(ms).toBeLessThanOrEqual(20_000);
    expect(await (await host.post('/budget')).json()).toEqual({ ms: 30_000 });
  });

  it('sends a heartbeat before it tries again', async () => {
    expect((await ask(TAKE_LONG, { conflicts: 1 })).value).toBe('done');
    expect(seen).toEqual(['attempt 1', 'heartbeat', 'attempt 2']);
  });

  it('does not try again when a heartbeat says that the message is another’s by now', async () => {
    beat = () => Promise.reject(new Error('The group is rebalancing'));
    expect((await ask(TAKE_LONG, { conflicts: 1 })).error?.code).toBe('INTERNAL_ERROR');
    expect(seen).toEqual(['attempt 1', 'heartbeat']);
  });
});

describe('behind a transport that sends every value of an Observable', () => {
  beforeAll(() => startHost(withStockTransport));
  afterAll(() => host.close());

  it('none of an attempt that failed is sent', async () => {
    const answers: string[] = [];
    const disposed = new Promise<void>((resolve) => {
      void peer.consume([ANSWERS], ({ headers, value }) => {
        if (value?.length) answers.push(value.toString());
        if (headers?.['kafka_nest-is-disposed']) resolve();
      });
    });
    const headers = { kafka_correlationId: randomUUID(), kafka_replyTopic: ANSWERS };
    await peer.emit(VALUES, { value: '{}', headers });
    await disposed;
    expect(answers).toEqual(['first of attempt 2', 'second of attempt 2']);
  });
});

describe('behind our transport', () => {
  beforeAll(() => startHost(withOurTransport, { timeoutMs: MODULE_TIMEOUT_MS }));
  afterAll(() => host.close());

  it('a message without a reply address whose attempts are used up is kept, and applied later', async () => {
    await peer.emit(COLLIDE, { value: JSON.stringify({ name: 'kept', conflicts: 10, deliveries: 1 }) });
    expect(await eventually(() => host.committed('kept'))).toBe(1);
    expect(seen).toHaveLength(11);
    expect(deliveries).toBe(2);
  });

  it("the module's budget counts before the twenty seconds of a message", async () => {
    const { value } = await ask(BUDGET);
    expect((JSON.parse(value!) as { ms: number }).ms).toBeLessThanOrEqual(MODULE_TIMEOUT_MS);
  });
});
