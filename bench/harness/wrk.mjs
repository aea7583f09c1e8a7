import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const SCRIPT = path.join(import.meta.dirname, 'wrk.lua');

/** The generator that costs least; undefined where it is not installed. */
export async function wrkLoad({ directory }) {
  const version = await versionOfWrk();
  if (!version) return undefined;
  mkdirSync(directory, { recursive: true });
  const file = path.join(directory, 'requests');
  return {
    name: `wrk ${version}`,
    /** At the end of a turn it hangs up on as many requests as it has connections. */
    unanswered: (callers) => callers,
    /** For `ms` milliseconds, rounded up to whole seconds. */
    async turn({ url, requests, ms, callers, takesFailures = false }) {
      const lines = requests.map(({ method, path: where, body = '' }) => `${method}\t${where}\t${body}\n`);
      writeFileSync(file, lines.join(''));
      const seconds = Math.ceil(ms / 1000);
      const args = [
        '-t1',
        `-c${callers}`,
        `-d${seconds}s`,
        '--latency',
        '--timeout',
        '10s',
        '-s',
        SCRIPT,
        url,
        '--',
        file,
      ];
      return read((await execute('wrk', args)).stdout, takesFailures);
    },
  };
}

async function versionOfWrk() {
  try {
    await execute('wrk', ['--version']);
    return '';
  } catch (error) {
    // It tells its version and exits with 1.
    return /wrk (?:debian\/)?([\d.]+\d)/.exec(`${error.stdout}${error.stderr}`)?.[1];
  }
}

const MS = { us: 0.001, ms: 1, s: 1000, m: 60_000 };

function read(said, takesFailures) {
  const number = (pattern) => Number(pattern.exec(said)?.[1] ?? 0);
  const operations = number(/(\d+) requests in/);
  const perSecond = number(/Requests\/sec:\s+([\d.]+)/);
  const refused = number(/Non-2xx or 3xx responses: (\d+)/);
  const [, ...failed] =
    /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(said) ?? [];
  const failures = failed.reduce((sum, count) => sum + Number(count), refused);
  if ((failures > 0 || operations === 0) && !takesFailures)
    throw new Error(`Not all answers were good:\n${said}`);
  const millis = (percent) => {
    const [, value, unit] = new RegExp(`${percent}%\\s+([\\d.]+)(us|ms|s|m)\\b`).exec(said);
    return Number(value) * MS[unit];
  };
  const seconds = operations > 0 ? operations / perSecond : number(/requests in ([\d.]+)s/);
  return { operations, seconds, failures, p50: millis(50), p99: millis(99) };
}
