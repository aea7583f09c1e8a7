import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import { applicationFiles } from './application-files.js';
import { packageManagerOf } from '../init/package-manager.js';
import { planInit } from '../init/plan.js';
import { unifiedDiff } from '../init/unified-diff.js';
import { EXIT, UsageError } from './usage.js';

const flag = { type: 'boolean' } as const;
const OPTIONS = {
  yes: flag,
  'dry-run': flag,
  'skip-install': flag,
  'source-root': { type: 'string' },
} as const;

/**
 * Runs `init`: adds people to the Nest application of a directory.
 *
 * @returns the exit code
 * @throws UsageError what to change about the command line
 * @throws InitError it is no application that can be changed
 */
export async function initCommand(args: string[], root: string): Promise<number> {
  const options = optionsOf(args);
  const { changes, byHand, installs } = planInit(applicationFiles(root), options['source-root']);
  for (const { name, before, after } of changes) say(unifiedDiff(name, before, after));
  const code = byHand.length > 0 ? EXIT.byHand : EXIT.done;
  const tellRest = () => byHand.forEach((sentence) => process.stderr.write(`Left to you: ${sentence}\n`));
  if (changes.length === 0 || options['dry-run']) {
    if (changes.length === 0 && byHand.length === 0) say('Everything is there: nothing to do.\n');
    tellRest();
    return code;
  }
  if (!options.yes && !(await confirmed())) {
    say('Nothing was written.\n');
    return EXIT.done;
  }
  for (const { name, after } of changes) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), after);
  }
  const manager = packageManagerOf(root);
  if (installs && !options['skip-install']) await install(manager, root);
  else if (installs) say(`Then: ${manager} install\n`);
  tellRest();
  return code;
}

function optionsOf(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS }).values;
  } catch (error) {
    throw new UsageError(`init: ${(error as Error).message}`);
  }
}

async function confirmed(): Promise<boolean> {
  if (!process.stdin.isTTY)
    throw new UsageError('init: nobody can be asked here whether to write this; say --yes, or --dry-run');
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^(y|yes|)$/i.test((await terminal.question('Write this? [Y/n] ')).trim());
  } finally {
    terminal.close();
  }
}

async function install(manager: string, root: string): Promise<void> {
  const child = spawn(manager, ['install'], { cwd: root, stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`${manager} install did not succeed; the files are written. Run it again.`);
}

function say(text: string): void {
  process.stdout.write(text);
}
