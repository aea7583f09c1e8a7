#!/usr/bin/env node
import 'reflect-metadata';
import { deadLettersCommand, USAGE, UsageError } from './app/dead-letters-command.js';

const [command, ...args] = process.argv.slice(2);
try {
  if (command !== 'dead-letters') throw new UsageError(`expected dead-letters, not "${command ?? ''}"`);
  await deadLettersCommand(args, (line) => process.stdout.write(`${line}\n`));
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(isUsage ? `${error.message}\n\n${USAGE}\n` : `${(error as Error).message}\n`);
  process.exitCode = isUsage ? 2 : 1;
}
