import { existsSync, readFileSync } from 'node:fs';

// USER_HZ, which is 100 on every architecture Node runs on.
const MICROS_PER_TICK = 10_000;
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** CPU time in µs of a process with all its threads; undefined where there is no /proc, or no process. */
export const cpuMicrosOf = (pid) =>
  pid && hasProc() ? sum(ticks(pid).slice(0, 2)) * MICROS_PER_TICK : undefined;

/** The same of a process and all its children, those that have ended included. */
export function cpuMicrosOfFamily(pid) {
  if (!hasProc()) return undefined;
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  const running = sum(children.map((child) => sum(ticks(child).slice(0, 2))));
  return (running + sum(ticks(pid))) * MICROS_PER_TICK;
}

/** Resident memory in MiB; NaN where it can't be told. */
export function residentMebibytes(pid) {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;
  } catch {
    return NaN;
  }
}

const hasProc = () => existsSync('/proc/self/stat');

/** A process's own ticks in user and kernel mode, then those of its children that have ended. */
function ticks(pid) {
  let stat;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    // An autovacuum worker that has ended meanwhile: the postmaster has its time now.
    return [0, 0, 0, 0];
  }
  // The command's name may hold blanks; utime, stime, cutime and cstime are the fields 14 to 17 (proc_pid_stat(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).map(Number);
}
