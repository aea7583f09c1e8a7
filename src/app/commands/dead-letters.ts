// app/commands/: What is asked for on the command line beside the service: dead letters, and people in an application.
// Promises: an exit code that a script can use; who did what is kept, as over HTTP.
// May know: operations/ and messaging/, init/, and the settings of the environment.

import { Module, type DynamicModule } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { userInfo } from 'node:os';
import { dataSourceOptions } from '../../database/data-source-options.js';
import { MessagingModule } from '../../messaging/messaging.module.js';
import { DeadLetterNotFoundError } from '../../operations/dead-letters/errors.js';
import { MessageOperations } from '../../operations/dead-letters/message-operations.js';
import { type DeadLettersCommand, parseCommand, UsageError } from './usage.js';
import { readDatabase } from '../environment.js';
import { runningDatabaseUrl } from '../services-file.js';

const PAGE = 1000;

@Module({})
class DeadLettersModule {
  static on(database: Parameters<typeof dataSourceOptions>[0]): DynamicModule {
    const options = dataSourceOptions(database, () => undefined);
    return {
      module: DeadLettersModule,
      imports: [TypeOrmModule.forRoot({ ...options, retryAttempts: 0 }), MessagingModule.forRoot()],
      providers: [MessageOperations],
    };
  }
}

/**
 * Runs `dead-letters list|show|replay|discard`.
 *
 * @param print one line of the result
 * @throws UsageError what to change about the command line
 * @throws DeadLetterNotFoundError what is asked for by its id is not there
 */
export async function deadLettersCommand(args: string[], print: (line: string) => void): Promise<void> {
  const command = parseCommand(args);
  const database = readDatabase();
  const url = database.url ?? runningDatabaseUrl();
  if (!url) throw new UsageError('DATABASE_URL: missing, and no service runs in this directory.');
  const module = DeadLettersModule.on({ ...database, url, poolSize: 2 });
  const app = await NestFactory.createApplicationContext(module, { logger: false, abortOnError: false });
  try {
    await run(app.get(MessageOperations), command, print);
  } finally {
    await app.close();
  }
}

async function run(
  operations: MessageOperations,
  { action, filter, limit, reason }: DeadLettersCommand,
  print: (line: string) => void,
): Promise<void> {
  if (action === 'list' || action === 'show') {
    let printed = 0;
    for (let after = '0'; printed < limit;) {
      const page = await operations.list(filter, Math.min(PAGE, limit - printed), after);
      for (const letter of page)
        print(
          JSON.stringify(
            action === 'list' ? letter : await operations.find(letter.seq),
            undefined,
            action === 'show' ? 2 : 0,
          ),
        );
      if (page.length === 0) break;
      printed += page.length;
      after = page.at(-1)!.seq;
    }
    if (printed === 0 && filter.id !== undefined) throw new DeadLetterNotFoundError(filter.id);
    return;
  }
  const settled = await operations.settleAll(action, filter, {
    actor: `${userName()} (command line)`,
    reason,
  });
  if (settled === 0 && filter.id !== undefined) throw new DeadLetterNotFoundError(filter.id);
  print(`${settled} ${action === 'replay' ? 'replayed' : 'discarded'}`);
}

/** A container's user may have no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `user ${process.getuid?.() ?? ''}`;
  }
}
