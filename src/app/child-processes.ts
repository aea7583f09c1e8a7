import { processesMarked } from '../dev/process-table.js';

/**
 * Sends `signal` to every process that this one started, directly or not: embedded servers, and the tools that prepare
 * them, as initdb and Maven.
 */
export function signalDescendants(signal: NodeJS.Signals): void {
  // The empty text is part of every command line.
  const processes = processesMarked('');
  const family = new Set([process.pid]);
  for (let before = 0; before < family.size;) {
    before = family.size;
    for (const { pid, parent } of processes) if (family.has(parent)) family.add(pid);
  }
  family.delete(process.pid);
  for (const pid of family) {
    try {
      process.kill(pid, signal);
    } catch {
      // It ended by itself, or is another's: the others are to get the signal all the same.
    }
  }
}
