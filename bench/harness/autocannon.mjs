import autocannon from 'autocannon';
import { answerParent } from './process.mjs';

// The process that loads the HTTP contestants where wrk is not installed, so that their CPU time is theirs alone.

/** For the answers that are underway when the turn is over. */
const END_WITHIN_MS = 10_000;
const HEADERS = { 'content-type': 'application/json' };

answerParent({
  /** `callers` connections that are kept, each with one request at a time, for `ms` milliseconds. */
  async turn({ url, requests, ms, callers, takesFailures = false }) {
    const prepared = requests.map((request) => (request.body ? { ...request, headers: HEADERS } : request));
    const share = Math.floor(prepared.length / callers);
    const clients = [];
    let operations = 0;
    let first;
    let last;
    const run = autocannon({
      url,
      connections: callers,
      duration: (ms + END_WITHIN_MS) / 1000,
      // How often autocannon looks whether all is done.
      sampleInt: 20,
      setupClient(client) {
        client.setRequests(prepared.slice(share * clients.length, share * (clients.length + 1)));
        clients.push(client);
      },
    });
    // autocannon's own clock begins before the requests are made, and is rounded to 10 ms.
    run.on('response', () => {
      last = performance.now();
      first ??= last;
      operations++;
    });
    // At the end of `duration` autocannon would hang up on requests that are being served; nobody could tell how many
    // people they create. A client that is told that it has sent enough takes its last answer and goes.
    setTimeout(() => {
      for (const client of clients) client.responseMax = client.reqsMade;
    }, ms);
    const { errors, non2xx, statusCodeStats, latency } = await run;
    const failures = errors + non2xx;
    if ((failures > 0 && !takesFailures) || operations < 2) {
      throw new Error(`${errors} connections failed; answers by status: ${JSON.stringify(statusCodeStats)}.`);
    }
    const { p50, p99 } = latency;
    return { operations, seconds: (last - first) / 1000, failures, p50, p99 };
  },
});
