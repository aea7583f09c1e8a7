import { type ClientKafka, ClientProxyFactory, Transport } from '@nestjs/microservices';
import { logLevel } from 'kafkajs';
import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { lastValueFrom } from 'rxjs';
import { runTool } from '../../src/dev/embedded-process.js';
import { findJava } from '../../src/dev/kafka-jars.js';
import { mavenClassPath } from '../../src/dev/maven.js';
import { eventually } from './barrier.js';

/** A reply as another client reads it. */
export interface OtherReply {
  value: string | null;
  /** JSON; null where it is none. */
  error: string | null;
  /** Their names; undefined where the client does not show them. */
  headers: string[] | undefined;
}

/** A client that is not ours. */
export interface OtherClient {
  ask(topic: string, value: object): Promise<OtherReply>;
  close(): Promise<void>;
}

const JARS = ['org.springframework.kafka:spring-kafka:4.1.2', 'org.slf4j:slf4j-nop:2.0.17'];
const SOURCE = 'test/messaging/other-clients/OtherClients.java';

/** How the Java program is started; undefined, and a line that says why, where this machine has not what it needs. */
export async function findJavaClients(): Promise<string[] | undefined> {
  try {
    const java = await findJava();
    if (!(await runTool(java, ['--list-modules'])).includes('jdk.compiler'))
      throw new Error('This Java has no compiler: install a JDK.');
    return [java, '-XX:-UsePerfData', '-XX:TieredStopAtLevel=1', '-cp', await classPath(), SOURCE];
  } catch (error) {
    leftOut('Java’s client and Spring', (error as Error).message);
    return undefined;
  }
}

/** kcat, as Debian installs it; undefined, and a line that says so, where it is not. */
export function findKcat(): string | undefined {
  const binary = (process.env.PATH ?? '')
    .split(':')
    .map((directory) => path.join(directory, 'kcat'))
    .find((file) => existsSync(file));
  if (!binary) leftOut('librdkafka', 'kcat is not installed (apt-get install kcat).');
  return binary;
}

const leftOut = (who: string, why: string) =>
  process.stderr.write(`The tests of ${who} were left out: ${why.split('\n').at(-1)}\n`);

function classPath(): Promise<string> {
  const directory = path.resolve('.data/other-clients');
  mkdirSync(directory, { recursive: true });
  return mavenClassPath(directory, JARS);
}

/** The Java program, which is several clients. @param replies the beginning of the names of their reply topics */
export function startJavaClients([command, ...args]: string[], brokers: string, replies: string) {
  const child: ChildProcessWithoutNullStreams = spawn(command!, [...args, brokers, replies]);
  const output = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let complaints = '';
  child.stderr.on('data', (data) => (complaints += String(data)));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const decoded = (part = '-') => (part === '-' ? null : Buffer.from(part.slice(1), 'base64').toString());
  return {
    /** One of `OtherClients.make`. */
    client: (name: string): OtherClient => ({
      ask: async (topic, value) => {
        child.stdin.write(`${name}\t${topic}\t${JSON.stringify(value)}\n`);
        const { value: line } = (await output.next()) as { value: string | undefined };
        if (line === undefined) throw new Error(`The Java program has ended:\n${complaints}`);
        const [answer, error, headers] = line.split('\t').map(decoded);
        return { value: answer!, error: error!, headers: headers?.split(',') };
      },
      close: () => Promise.resolve(),
    }),
    close: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

/** librdkafka. */
export function kcatClient(kcat: string, broker: string, replies: string): OtherClient {
  const run = promisify(execFile);
  return {
    ask: async (topic, value) => {
      const id = randomUUID();
      const headers = [`kafka_correlationId=${id}`, `kafka_replyTopic=${replies}`, 'kafka_replyPartition=3'];
      const asking = run(kcat, ['-P', '-b', broker, '-t', topic, '-k', 'key', ...headers.flatMap((header) => ['-H', header])]); // prettier-ignore
      asking.child.stdin!.end(JSON.stringify(value));
      await asking;
      return eventually(async () => {
        const { stdout } = await run(kcat, ['-C', '-b', broker, '-t', replies, '-p', '3', '-o', 'beginning', '-e', '-q', '-J']); // prettier-ignore
        const found = stdout
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line) as { headers: string[]; payload: string | null });
        const reply = found.find((record) => record.headers.includes(id));
        if (!reply) return undefined;
        const names = reply.headers.filter((_, index) => index % 2 === 0);
        const error = reply.headers[2 * names.indexOf('kafka_nest-err') + 1];
        return {
          value: reply.payload,
          error: names.includes('kafka_nest-err') ? error! : null,
          headers: names,
        };
      }, 30_000);
    },
    close: () => Promise.resolve(),
  };
}

/** Nest's own; it makes of a reply what its caller gets, and shows no headers. */
export async function nestClient(broker: string, topics: readonly string[]): Promise<OtherClient> {
  const client = ClientProxyFactory.create({
    transport: Transport.KAFKA,
    options: {
      client: { brokers: [broker], clientId: 'caller', logLevel: logLevel.NOTHING },
      consumer: { groupId: `caller-${randomUUID()}`, maxWaitTimeInMs: 100 },
    },
  }) as unknown as ClientKafka;
  for (const topic of topics) client.subscribeToResponseOf(topic);
  await client.connect();
  return {
    ask: async (topic, value) => {
      try {
        const answer: unknown = await lastValueFrom(client.send(topic, { key: 'key', value }), {
          defaultValue: null,
        });
        return { value: answer === null ? null : JSON.stringify(answer), error: null, headers: undefined };
      } catch (error) {
        return { value: null, error: JSON.stringify(error), headers: undefined };
      }
    },
    close: () => client.close(),
  };
}
