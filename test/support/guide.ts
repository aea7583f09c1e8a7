import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const CHAPTERS = 'docs/guide';
const STEPS = 'examples/guide';

/** What each begins with a number and has a step of the same name. */
export const chapters = namesIn(CHAPTERS, '.md');
export const steps = namesIn(STEPS, '.ts');

/** Of one chapter, in their order. */
export function blocksOf(chapter: string, language: string): string[] {
  const text = readFileSync(path.join(CHAPTERS, `${chapter}.md`), 'utf8');
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)]
    .filter(([, itsLanguage]) => itsLanguage === language)
    .map(([, , block]) => block!);
}

/** Its step, and what all steps share. */
export const sourcesOf = (chapter: string): string[] =>
  readdirSync(STEPS)
    .filter((file) => file === `${chapter}.ts` || !/^\d/.test(file))
    .map((file) => readFileSync(path.join(STEPS, file), 'utf8'));

/** Runs steps in one process, and resolves with what each has printed. */
export async function runSteps(
  numbers: readonly string[],
  environment: Record<string, string>,
): Promise<Map<string, string>> {
  const child = spawn(
    process.execPath,
    ['--import', '@swc-node/register/esm-register', `${STEPS}/run.ts`, ...numbers],
    { env: { ...process.env, NO_COLOR: '1', ...environment }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  let errors = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (errors += data));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`The guide ended with ${code}:\n${output}\n${errors}`);
  const parts = output.split(/^# (.*)\n/m).slice(1);
  return new Map(parts.flatMap((name, index) => (index % 2 === 0 ? [[name, parts[index + 1]!]] : [])));
}

function namesIn(folder: string, extension: string): string[] {
  return readdirSync(folder)
    .filter((file) => /^\d\d-/.test(file) && file.endsWith(extension))
    .map((file) => path.basename(file, extension))
    .sort();
}
