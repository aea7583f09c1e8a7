import { Module, type DynamicModule } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { parseArgs } from 'node:util';
import { dataSourceOptions } from '../database/data-source-options.js';
import { DeadLetters } from '../messaging/dead-letters.js';
import { MessagingModule } from '../messaging/messaging.module.js';
import { readDatabase } from './environment.js';
import { runningDatabaseUrl } from './services-file.js';

export const USAGE = `usage: nestjs-people dead-letters list|replay|discard [--topic T] [--key K] [--id ID] [--error CODE] [--all]

  list     prints one JSON object per line: those that are neither replayed nor discarded, oldest first
  replay   has them handled again, by way of the topic they came from; a running service has to relay them
  discard  puts them away for good

Messages whose state is "parked" wait behind a dead letter of their key (KAFKA_QUARANTINE_KEYS). Replaying one of the key's, or
discarding its last dead letter, releases the key: what is parked is handled, in order. With the code KEY_WAITS they wait for
the first of them, which is tried again by itself: replay tries it at once, discarding it lets the others go on.

replay and discard need at least one of --topic, --key, --id (message id, or seq of the list), --error, or --all.
The database is that of DATABASE_URL or DB_HOSTNAME; without them, the one that npm start runs in this directory.`;

const PAGE = 1000;

/** A command line that can't be understood. */
export class UsageError extends Error {}

@Module({})
class DeadLettersModule {
  static on(database: Parameters<typeof dataSourceOptions>[0]): DynamicModule {
    const options = dataSourceOptions(database, () => undefined);
    return {
      module: DeadLettersModule,
      imports: [TypeOrmModule.forRoot({ ...options, retryAttempts: 0 }), MessagingModule.forRoot()],
    };
  }
}

/**
 * Runs `dead-letters list|replay|discard`.
 *
 * @param print one line of the result
 * @throws UsageError what to change about the command line
 */
export async function deadLettersCommand(args: string[], print: (line: string) => void): Promise<void> {
  const { action, filter } = parse(args);
  const database = readDatabase();
  const url = database.url ?? runningDatabaseUrl();
  if (!url) throw new UsageError('DATABASE_URL: missing, and no service runs in this directory.');
  const module = DeadLettersModule.on({ ...database, url, poolSize: 2 });
  const app = await NestFactory.createApplicationContext(module, { logger: false, abortOnError: false });
  try {
    const letters = app.get(DeadLetters, { strict: false });
    if (action !== 'list')
      return print(`${await letters[action](filter)} ${action === 'replay' ? 'replayed' : 'discarded'}`);
    for (let page = await letters.list(filter, PAGE); page.length > 0;) {
      for (const letter of page) print(JSON.stringify(letter));
      page = await letters.list(filter, PAGE, page.at(-1)!.seq);
    }
  } finally {
    await app.close();
  }
}

function parse([action = '', ...rest]: string[]) {
  const text = { type: 'string' } as const;
  let values;
  try {
    ({ values } = parseArgs({
      args: rest,
      options: { topic: text, key: text, id: text, error: text, all: { type: 'boolean' } },
    }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const { all, ...filter } = values;
  if (action !== 'list' && action !== 'replay' && action !== 'discard')
    throw new UsageError(`dead-letters: expected list, replay or discard, not "${action}"`);
  if (action !== 'list' && !all && Object.keys(filter).length === 0)
    throw new UsageError(`dead-letters ${action}: say which, or --all`);
  return { action, filter } as const;
}
