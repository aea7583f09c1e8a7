#!/usr/bin/env node
import 'reflect-metadata';
import { deadLettersCommand } from './app/commands/dead-letters.js';
import { EXIT, USAGE, UsageError } from './app/commands/usage.js';
import { DeadLetterNotFoundError } from './operations/dead-letters/errors.js';

const [command, ...args] = process.argv.slice(2);
try {
  if ([command, ...args].includes('--help')) process.stdout.write(`${USAGE}\n`);
  else if (command === 'dead-letters')
    await deadLettersCommand(args, (line) => process.stdout.write(`${line}\n`));
  else throw new UsageError(`expected dead-letters, not "${command ?? ''}"`);
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(isUsage ? `${error.message}\n\n${USAGE}\n` : `${(error as Error).message}\n`);
  process.exitCode = isUsage
    ? EXIT.usage
    : error instanceof DeadLetterNotFoundError
      ? EXIT.notFound
      : EXIT.failed;
}
