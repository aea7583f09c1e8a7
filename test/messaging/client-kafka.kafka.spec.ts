import { Controller, type INestMicroservice, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  type ClientKafka,
  ClientProxyFactory,
  Ctx,
  KafkaContext,
  MessagePattern,
  type MicroserviceOptions,
  Payload,
  RpcException,
  ServerKafka,
  Transport,
} from '@nestjs/microservices';
import { logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { firstValueFrom, lastValueFrom, of, toArray } from 'rxjs';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { brokers, connectPeer } from '../support/kafka.js';
import { OnEvent } from '../support/messages-host.js';

const run = randomUUID();
const REQUESTS = ['echo', 'context', 'several', 'nothing', 'throws', 'refuses'].map(
  (name) => `${name}-${run}`,
);
const [ECHO, CONTEXT, SEVERAL, NOTHING, THROWS, REFUSES] = REQUESTS as [
  string,
  string,
  string,
  string,
  string,
  string,
];
const EVENT = `event-${run}`;

let server: INestMicroservice;
let client: ClientKafka;
let seen: unknown[] = [];
let hooks: string[] = [];

@Controller()
class EchoController {
  @MessagePattern(ECHO)
  echo(@Payload() input: unknown) {
    return input;
  }

  @MessagePattern(CONTEXT)
  context(@Ctx() context: KafkaContext) {
    const { key, headers, offset } = context.getMessage();
    return {
      topic: context.getTopic(),
      partition: context.getPartition(),
      keyed: key as unknown,
      own: headers!.own as unknown,
      offset: typeof offset,
      heartbeat: typeof context.getHeartbeat(),
      parts: [context.getConsumer(), context.getProducer()].map((part) => typeof part),
    };
  }

  @MessagePattern(SEVERAL)
  several() {
    return of('one', { two: 2 }, ['three']);
  }

  @MessagePattern(NOTHING)
  nothing() {
    return null;
  }

  @MessagePattern(THROWS)
  throws() {
    throw new TypeError('its text is nobody’s business');
  }

  @MessagePattern(REFUSES)
  refuses() {
    throw new RpcException({ code: 7, message: 'refused' });
  }

  @OnEvent(EVENT)
  take(@Payload() input: unknown) {
    seen.push(input);
  }
}

@Module({ controllers: [EchoController] })
class EchoModule {}

const ours = () =>
  new KafkaTransport({
    client: { brokers: brokers(), clientId: 'echo' },
    groupId: `echo-${randomUUID()}`,
    concurrency: 4,
    topics: { partitions: 1, replication: undefined },
  });
const stock = () =>
  new ServerKafka({
    client: { brokers: brokers(), clientId: 'echo', logLevel: logLevel.NOTHING },
    consumer: { groupId: `echo-${randomUUID()}`, maxWaitTimeInMs: 100 },
    subscribe: { fromBeginning: true },
  });

const peer = duringTests(() => connectPeer());
beforeAll(async () => {
  const topics = [...REQUESTS, ...REQUESTS.map((topic) => `${topic}.reply`), EVENT];
  await peer.createTopics(topics);
});

describe.each([
  ['our server', ours],
  ['Nest’s own server', stock],
])('ClientKafka with %s', (_, makeServer) => {
  beforeAll(async () => {
    seen = [];
    hooks = [];
    const strategy = makeServer();
    const where = (context: unknown) => (context as KafkaContext).getTopic();
    strategy.setOnProcessingStartHook((_transport, context, done) => {
      hooks.push(`start ${where(context)}`);
      void done();
    });
    strategy.setOnProcessingEndHook((_transport, context) => void hooks.push(`end ${where(context)}`));
    server = await NestFactory.createMicroservice<MicroserviceOptions>(EchoModule, {
      strategy,
      logger: false,
    });
    await server.listen();
    client = ClientProxyFactory.create({
      transport: Transport.KAFKA,
      options: {
        client: { brokers: brokers(), clientId: 'caller', logLevel: logLevel.NOTHING },
        consumer: { groupId: `caller-${randomUUID()}`, maxWaitTimeInMs: 100 },
      },
    }) as unknown as ClientKafka;
    for (const topic of REQUESTS) client.subscribeToResponseOf(topic);
    await client.connect();
  });
  afterAll(async () => {
    await client.close();
    await server.close();
  });

  it.each([
    ['an object', { a: [1, { b: null }], text: 'ünïcode' }],
    ['an array', [1, 'two', null]],
    ['a text', 'just text'],
    ['a text that looks like a number', '42'],
  ])('%s comes back as it was sent', async (_name, input) => {
    expect(await firstValueFrom(client.send(ECHO, input))).toEqual(input);
  });

  it('a handler sees topic, partition, key, headers and the client’s parts', async () => {
    const message = { key: 'k', value: { a: 1 }, headers: { own: 'header' } };
    expect(await firstValueFrom(client.send(CONTEXT, message))).toEqual({
      topic: CONTEXT,
      partition: 0,
      keyed: 'k',
      own: 'header',
      offset: 'string',
      heartbeat: 'function',
      parts: ['object', 'object'],
    });
  });

  // @trap a handler gives nothing, or several values
  it('every value of an Observable arrives, in order, and then its end', async () => {
    expect(await lastValueFrom(client.send(SEVERAL, {}).pipe(toArray()))).toEqual([
      'one',
      { two: 2 },
      ['three'],
    ]);
  });

  it('a handler that gives nothing ends the request', async () => {
    const values = await lastValueFrom(client.send(NOTHING, {}).pipe(toArray()), { defaultValue: [] });
    expect(values.filter((value) => value !== null)).toEqual([]);
  });

  it('the error of a handler is the error of the request', async () => {
    await expect(firstValueFrom(client.send(REFUSES, {}))).rejects.toMatchObject({
      code: 7,
      message: 'refused',
    });
    const unexpected = await firstValueFrom(client.send(THROWS, {})).catch((error: unknown) => error);
    expect(JSON.stringify(unexpected)).not.toContain('business');
    expect(unexpected).toBeTruthy();
  });

  it.each([
    ['ends', ECHO],
    ['gives several values', SEVERAL],
    ['gives nothing', NOTHING],
    ['throws', THROWS],
  ])('the processing hooks are called around a handler that %s', async (_name, topic) => {
    hooks = [];
    await lastValueFrom(client.send(topic, {}), { defaultValue: undefined }).catch(() => undefined);
    await eventually(() => hooks.length >= 2);
    expect(hooks).toEqual([`start ${topic}`, `end ${topic}`]);
  });

  it('requests that are sent together are answered each with its own reply', async () => {
    const inputs = Array.from({ length: 50 }, (_value, n) => ({ n }));
    expect(await Promise.all(inputs.map((input) => firstValueFrom(client.send(ECHO, input))))).toEqual(
      inputs,
    );
  });

  it('an event is taken, and nobody waits', async () => {
    await lastValueFrom(client.emit(EVENT, { value: { n: 1 } }));
    await eventually(() => seen.length > 0);
    expect(seen[0]).toEqual({ n: 1 });
    await eventually(() => hooks.at(-1) === `end ${EVENT}`);
  });
});
