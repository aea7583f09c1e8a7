#!/usr/bin/env node
import 'reflect-metadata';
import { deadLettersCommand } from './app/commands/dead-letters.js';
import { explainMissing } from './app/commands/start.js';
import { EXIT, USAGE, UsageError } from './app/commands/usage.js';
import { DeadLetterNotFoundError } from './operations/dead-letters/errors.js';

const [command, ...args] = process.argv.slice(2);
try {
  if ([command, ...args].includes('--help')) process.stdout.write(`${USAGE}\n`);
  else if (command === 'dead-letters')
    await deadLettersCommand(args, (line) => process.stdout.write(`${line}\n`));
  else if (command === 'start') await import('./main.js').catch(explainMissing);
  else throw new UsageError(`expected dead-letters or start, not "${command ?? ''}"`);
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(isUsage ? `${error.message}\n\n${USAGE}\n` : `${(error as Error).message}\n`);
  process.exitCode = isUsage
    ? EXIT.usage
    : error instanceof DeadLetterNotFoundError
      ? EXIT.notFound
      : EXIT.failed;
}
