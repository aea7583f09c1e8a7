#!/usr/bin/env node
import { EXIT, USAGE, UsageError } from './app/commands/usage.js';
import { DeadLetterNotFoundError } from './operations/dead-letters/errors.js';

const [command, ...args] = process.argv.slice(2);
try {
  if ([command, ...args].includes('--help')) process.stdout.write(`${USAGE}\n`);
  // Each by itself: an application that is only about to get people may have nothing installed that the others need.
  else if (command === 'dead-letters') {
    await import('reflect-metadata');
    const { deadLettersCommand } = await import('./app/commands/dead-letters.js');
    await deadLettersCommand(args, (line) => process.stdout.write(`${line}\n`));
  } else if (command === 'start') {
    const { explainMissing } = await import('./app/commands/start.js');
    await import('./main.js').catch(explainMissing);
  } else if (command === 'init') {
    const { initCommand } = await import('./app/commands/init.js');
    process.exitCode = await initCommand(args, process.cwd());
  } else throw new UsageError(`expected dead-letters, start or init, not "${command ?? ''}"`);
} catch (error) {
  const isUsage = error instanceof UsageError;
  process.stderr.write(isUsage ? `${error.message}\n\n${USAGE}\n` : `${(error as Error).message}\n`);
  process.exitCode = isUsage
    ? EXIT.usage
    : error instanceof DeadLetterNotFoundError
      ? EXIT.notFound
      : EXIT.failed;
}
