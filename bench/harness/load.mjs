import { startProcess } from './process.mjs';
import { versionOf } from './versions.mjs';
import { wrkLoad } from './wrk.mjs';

/**
 * What sends HTTP requests: the generator that costs least of those that are installed.
 *
 * @returns its `name`; `turn({ url, requests, ms, callers, takesFailures })`, `callers` connections that are kept, each with one
 *   request at a time; and `unanswered(callers)`, how many requests it may hang up on at the end of a turn
 */
export async function openLoad({ directory, interrupted, started }) {
  const wrk = await wrkLoad({ directory });
  if (wrk) return wrk;
  const { ask, stop } = startProcess('autocannon.mjs', { interrupted });
  started.push(stop);
  return {
    name: `autocannon ${versionOf('autocannon')}`,
    unanswered: () => 0,
    turn: (turn) => ask('turn', turn),
  };
}
