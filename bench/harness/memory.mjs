import { residentMebibytes } from './cpu.mjs';

const SAMPLE_MS = 20;

/** The resident memory (MiB) of a process: what it was, and with `stop()` the most that it was since. */
export function watchMemory(pid) {
  const before = residentMebibytes(pid);
  let highest = before;
  const look = () => (highest = Math.max(highest, residentMebibytes(pid)));
  const timer = setInterval(look, SAMPLE_MS);
  return {
    before,
    stop() {
      clearInterval(timer);
      return highest;
    },
  };
}
