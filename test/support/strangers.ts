import type { Type } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { KAFKA_CLIENTS, type KafkaClientName } from '../../src/messaging/kafka/clients.js';
import type { KafkaTransport } from '../../src/messaging/kafka.transport.js';
import type { MessageStore } from '../../src/messaging/message-store.js';
import { eventually } from './barrier.js';
import type { Reply } from './kafka.js';
import { NONE, type RawRecord, sendRaw } from './raw-records.js';
import {
  hostController,
  PARTITIONS,
  type Running,
  startHost,
  startPeople,
  type SubjectKind,
  type SubjectOptions,
} from './stranger-applications.js';
import { createDatabase, type TestDatabase } from './test-database.js';

export { PARTITIONS, type SubjectKind, type SubjectOptions } from './stranger-applications.js';

/** Each client library with each kind of handlers. */
export const CLIENTS = KAFKA_CLIENTS;
const ALL_SUBJECTS = CLIENTS.flatMap((client) => [
  [client, 'people'] as [KafkaClientName, SubjectKind],
  [client, 'host'] as [KafkaClientName, SubjectKind],
]);
/** Both clients and both kinds; each with each where `STRANGERS=all`, which takes twice as long. */
export const EACH_SUBJECT: [KafkaClientName, SubjectKind][] =
  process.env.STRANGERS === 'all'
    ? ALL_SUBJECTS
    : [
        ['kafkajs', 'people'],
        ['platformatic', 'host'],
      ];

/** A request that is not answered by then is not answered at all: what is wrong is left as it is meanwhile. */
const ANSWER_MS = 15_000;
const START_MS = 40_000;
const TOLD_MS = 20_000;
const HANDLED_MS = 30_000;
/** A row that fails waits for each of these. */
export const ROW_MS = 150_000;

/** An application under test: its topic `struck` is what something happens to, `bystander` is another. */
export class Subject {
  readonly struck: string;
  readonly bystander: string;
  readonly groupId: string;
  readonly database: TestDatabase;
  /** Names that the host's handlers were given. */
  private readonly seen: string[] = [];
  private readonly controller: Type;
  private closed: Promise<void> | undefined;
  private running: Running | undefined;

  private constructor(
    private readonly options: SubjectOptions,
    database: TestDatabase,
  ) {
    const run = randomUUID();
    const isHost = options.kind === 'host';
    this.struck = isHost ? `struck-${run}` : 'people.create';
    this.bystander = isHost ? `bystander-${run}` : 'people.find-by-name';
    this.groupId = options.groupId ?? `strangers-${run}`;
    this.database = database;
    this.controller = hostController(this.struck, this.bystander, this.seen);
  }

  /** Starts it, on a database of its own; the topics of people are made anew. @param isServing false: comes back at once */
  static async start(options: SubjectOptions, isServing = true): Promise<Subject> {
    if (options.kind === 'people') await options.peer.deleteTopics();
    const subject = new Subject(options, await createDatabase());
    try {
      await subject.startAgain(isServing);
      return subject;
    } catch (error) {
      await subject.close();
      throw error;
    }
  }

  get transport(): KafkaTransport {
    return this.running!.transport;
  }

  get store(): MessageStore {
    return this.running!.store;
  }

  async startAgain(isServing = true): Promise<void> {
    this.running =
      this.options.kind === 'people'
        ? await startPeople(this.options, this.database, this.groupId)
        : await startHost(this.options, this.database, this.groupId, this.controller);
    // Its group may take a while to form.
    if (isServing) await this.askOn(this.bystander, 'first', 0, 'first', START_MS);
  }

  /** As `app.close()` does; the database stays. */
  async stop(): Promise<void> {
    await this.running?.close();
    this.running = undefined;
  }

  /** Once: a row may have failed before it had one of its own. */
  close(): Promise<void> {
    return (this.closed ??= this.stop().then(() => this.database.drop()));
  }

  /** Why messages are not handled, as readiness says it; '' while they are. */
  async reason(): Promise<string> {
    return this.running!.reason();
  }

  /** Until readiness tells all of this. @returns what it tells */
  async isTold(...parts: (string | RegExp)[]): Promise<string> {
    let reason = '';
    const hasIt = (part: string | RegExp) =>
      typeof part === 'string' ? reason.includes(part) : part.test(reason);
    const isTold = eventually(async () => {
      reason = await this.reason();
      return parts.every(hasIt);
    }, TOLD_MS);
    await isTold.catch(() => {
      throw new Error(`Readiness does not tell ${parts.map(String).join(', ')}; it tells: '${reason}'.`);
    });
    return reason;
  }

  /** Until readiness has nothing to tell any more. */
  async isWell(): Promise<void> {
    await this.isTold(/^$/);
  }

  /** Until what is named was handled. */
  async hasHandled(...names: string[]): Promise<void> {
    let handled: string[] = [];
    const isDone = eventually(async () => {
      handled = await this.handled();
      return names.every((name) => handled.includes(name));
    }, HANDLED_MS);
    await isDone.catch(() => {
      throw new Error(`Of ${names.join(', ')} only these were handled: ${handled.join(', ')}.`);
    });
  }

  /** What is handled: a person of this name is made, the host's handler was given it. */
  async handled(): Promise<string[]> {
    if (this.options.kind === 'host') return [...this.seen];
    return (await this.database.query<{ name: string }>('SELECT name FROM people')).map(({ name }) => name);
  }

  /** Sends to the struck topic, without asking for a reply but by what is in `record`. @returns the offset */
  emit(record: RawRecord, partition = 0): Promise<bigint> {
    return sendRaw(this.brokers, this.struck, [record], NONE, partition);
  }

  /** Asks on the struck topic. */
  ask(
    name: string,
    { partition = 0, key = name }: { partition?: number; key?: string } = {},
  ): Promise<Reply> {
    return this.askOn(this.struck, name, partition, key);
  }

  /** Asks on the other topic, in each of its partitions. */
  async bystanderIsAnswered(): Promise<void> {
    for (let partition = 0; partition < PARTITIONS; partition++)
      await this.askOn(this.bystander, 'nobody', partition);
  }

  /** Not by a library's producer, which may stop for all its topics where one of them is gone. */
  private async askOn(
    topic: string,
    name: string,
    partition: number,
    key = name,
    atMostMs = this.options.answerMs ?? ANSWER_MS,
  ): Promise<Reply> {
    const { id, reply } = this.options.peer.awaitReply();
    const headers = [['kafka_correlationId', id], ['kafka_replyTopic', this.options.peer.replyTopic]] as const; // prettier-ignore
    await sendRaw(this.brokers, topic, [{ key, value: valueOf(name), headers }], NONE, partition);
    return answeredInTime(reply, `${name} on ${topic}, partition ${partition}`, atMostMs);
  }

  private get brokers(): string[] {
    return this.options.peer.brokers;
  }
}

/** What both kinds take as a request, and as one that is handled. */
export const valueOf = (name: string) => JSON.stringify({ name });
/** What neither can handle. */
export const BAD = '{"name":7}';

export async function answeredInTime<T>(asked: Promise<T>, what: string, atMostMs = ANSWER_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Not answered: ${what}.`)), atMostMs);
  });
  return Promise.race([asked, late]).finally(() => clearTimeout(timer));
}
