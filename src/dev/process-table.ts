import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

/** One row of the process table. */
export interface RunningProcess {
  readonly pid: number;
  readonly parent: number;
  /** Its command line; of a zombie, which holds nothing any more, there is none. */
  readonly command: string;
}

const hasProc = existsSync('/proc/self/stat');

/** The processes whose command line contains `marker`, this process excepted. */
export const processesMarked = (marker: string): RunningProcess[] =>
  (hasProc ? fromProc(marker) : fromPs()).filter(
    ({ pid, command }) => command.includes(marker) && pid !== process.pid,
  );

/** The command line of process `pid`; '' when there is none or it may not be read. */
export const processCommand = (pid: number): string =>
  hasProc ? readProc(pid, 'cmdline') : (fromPs().find((each) => each.pid === pid)?.command ?? '');

function fromProc(marker: string): RunningProcess[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), command: readProc(name, 'cmdline') }))
    .filter(({ command }) => command.includes(marker))
    .map((found) => ({ ...found, parent: parentOf(found.pid) }));
}

/** Empty when the process has ended since it was listed, or when it is one that this user may not look at. */
function readProc(pid: number | string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(errorCode(error))) return '';
    throw error;
  }
}

/** The second of the fields behind the parenthesised name of the program, which may itself contain blanks and parentheses. */
function parentOf(pid: number): number {
  const stat = readProc(pid, 'stat');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

/** Where there is no /proc, as on macOS. Its ps shows a command for zombies too. */
function fromPs(): RunningProcess[] {
  const columns = ['pid', 'ppid', 'stat', 'command'].flatMap((name) => ['-o', `${name}=`]);
  const rows = execFileSync('/bin/ps', ['-wwA', ...columns], { encoding: 'utf8' });
  return [...rows.matchAll(/^ *(\d+) +(\d+) +([^Z]\S*) +(.*)$/gm)].map(([, pid, parent, , command]) => ({
    pid: Number(pid),
    parent: Number(parent),
    command: command!,
  }));
}

/** The `code` of a system error, or '' for anything else. */
export function errorCode(error: unknown): string {
  // Not instanceof: under jest Node's own modules throw the Error of another realm.
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
}
