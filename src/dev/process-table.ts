import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

/** One row of the process table. */
export interface RunningProcess {
  readonly pid: number;
  readonly parent: number;
}

const hasProc = existsSync('/proc/self/stat');

/**
 * The processes whose command line contains `marker`, this process excepted. A zombie is none: it has no
 * command line any more and holds nothing.
 */
export function processesMarked(marker: string): RunningProcess[] {
  return (hasProc ? markedInProc(marker) : markedByPs(marker)).filter(({ pid }) => pid !== process.pid);
}

function markedInProc(marker: string): RunningProcess[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && readProc(name, 'cmdline').includes(marker))
    .map((name) => ({ pid: Number(name), parent: Number(statFields(name)[1]) }));
}

function markedByPs(marker: string): RunningProcess[] {
  return ps('-A', '-o', 'pid=', '-o', 'ppid=', '-o', 'command=')
    .split('\n')
    .filter((line) => line.includes(marker))
    .map((line) => line.trim().split(/\s+/))
    .map(([pid, parent]) => ({ pid: Number(pid), parent: Number(parent) }));
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

/** What follows the parenthesised command name, which may itself contain blanks and parentheses. */
function statFields(pid: number | string): string[] {
  const stat = readProc(pid, 'stat');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/**
 * When the process `pid` started, in a form only good for comparing; undefined when there is no such process.
 * With the pid it names one process for ever, across reuse of pids and reboots.
 */
export function processStart(pid: number): string | undefined {
  if (hasProc) {
    const fields = statFields(pid);
    if (fields[19] === undefined || fields[0] === 'Z') return undefined;
    return `${readProc('sys', 'kernel/random/boot_id').trim()} ${fields[19]}`;
  }
  return psColumn(pid, 'lstart') || undefined;
}

/** The command line of process `pid`; '' when there is none or it may not be read. */
export function processCommand(pid: number): string {
  return hasProc ? readProc(pid, 'cmdline') : psColumn(pid, 'command');
}

/** Empty for a zombie too: ps shows one until its parent has asked how it ended. */
function psColumn(pid: number, column: string): string {
  const row = ps('-o', 'stat=', '-o', `${column}=`, '-p', String(pid)).trim();
  return row.startsWith('Z') ? '' : row.replace(/^\S*\s*/, '');
}

/** Where there is no /proc, as on macOS. The dates it prints are compared, whatever shell each run came from. */
function ps(...args: string[]): string {
  try {
    const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC0' };
    return execFileSync('/bin/ps', ['-ww', ...args], { encoding: 'utf8', env });
  } catch (error) {
    // ps exits 1 for a pid that nobody has.
    if ((error as { status?: unknown }).status === 1) return '';
    throw error;
  }
}

/** The `code` of a system error, or '' for anything else. */
export function errorCode(error: unknown): string {
  // Not instanceof: under jest Node's own modules throw the Error of another realm.
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
}
