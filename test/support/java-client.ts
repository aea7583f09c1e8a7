import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { findJava } from '../../src/dev/kafka-jars.js';
import { eventually } from './barrier.js';

export type Codec = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** A record that a member has got. */
export interface JavaRecord {
  topic: string;
  partition: number;
  value: string;
}

/** A member of a group. */
export interface JavaMember {
  /** `topic-0`, sorted; undefined until it was given any. */
  assigned: () => string[] | undefined;
  records: () => JavaRecord[];
  leave(): Promise<void>;
}

/** Starting a JVM takes longer than most. */
const START_MS = 60_000;

/** Java's own client, in a process of its own. */
export class JavaClient {
  private readonly said: string[][] = [];
  private members = 0;

  private constructor(private readonly child: ChildProcess) {
    createInterface({ input: child.stdout! }).on('line', (line) => this.said.push(line.split('\t')));
  }

  static async start(brokers: string[]): Promise<JavaClient> {
    const jvm = ['-Xmx128m', '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-Dlog4j2.level=OFF'];
    const source = path.resolve('test/support/JavaClient.java');
    const args = [...jvm, '-cp', classPath(), source, brokers.join(',')];
    const client = new JavaClient(spawn(await findJava(), args, { stdio: ['pipe', 'pipe', 'ignore'] }));
    await eventually(() => client.said.some(([word]) => word === 'ready'), START_MS);
    return client;
  }

  /** @returns the offset */
  async produce(
    { topic, partition, codec }: { topic: string; partition: number; codec: Codec },
    { key, value, headers = {} }: { key: string; value: string; headers?: Record<string, string> },
  ): Promise<number> {
    const before = this.said.length;
    this.tell('produce', topic, String(partition), codec, key, value, ...Object.entries(headers).flat());
    const answer = await this.heard(before, ([word]) => word === 'sent');
    return Number(answer[1]);
  }

  /** @param settings as Java's client calls them, `group.id` among them */
  join(topics: string[], settings: Record<string, string>): JavaMember {
    const name = `member-${++this.members}`;
    this.tell(
      'join',
      name,
      topics.join(','),
      ...Object.entries(settings).map(([key, value]) => `${key}=${value}`),
    );
    return {
      records: () =>
        this.said
          .filter(([word, of]) => word === 'record' && of === name)
          .map(([, , topic, partition, , value]) => ({
            topic: topic!,
            partition: Number(partition),
            value: value!,
          })),
      assigned: () => {
        const last = this.said.findLast(([word, of]) => word === 'assigned' && of === name);
        return last && last[2]!.split(',').filter(Boolean);
      },
      leave: async () => {
        const before = this.said.length;
        this.tell('leave', name);
        await this.heard(before, ([word, of]) => word === 'left' && of === name);
      },
    };
  }

  stop(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.child.once('close', () => resolve()));
    this.child.stdin!.end();
    return ended;
  }

  private tell(...words: string[]): void {
    this.child.stdin!.write(`${words.join('\t')}\n`);
  }

  private heard(from: number, isIt: (words: string[]) => boolean): Promise<string[]> {
    return eventually(() => {
      const failed = this.said.slice(from).find(([word]) => word === 'failed');
      if (failed) throw new Error(failed.join(' '));
      return this.said.slice(from).find(isIt);
    }, START_MS);
  }
}

/** That of the run's Kafka. */
function classPath(): string {
  const directory = path.resolve(process.env.TMPDIR!, '../kafka');
  const file = readdirSync(directory).find((name) => /^classpath-[0-9a-f]+$/.test(name))!;
  return readFileSync(path.join(directory, file), 'utf8').trim();
}
