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
    /** `callers` connections that are kept, each with one request at a time, for `ms` milliseconds in whole seconds. */
    async turn({ url, requests, ms, callers }) {
      const lines = requests.map(({ method, path: where, body = '' }) => `${method}\t${where}\t${body}\n`);
      writeFileSync(file, lines.join(''));
      const seconds = Math.ceil(ms / 1000);
      const args = [
        '-t1',
        `-c${callers}`,
        `-d${seconds}s`,
        '--timeout',
        '10s',
        '-s',
        SCRIPT,
        url,
        '--',
        file,
      ];
      return read((await execute('wrk', args)).stdout);
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

function read(said) {
  const number = (pattern) => Number(pattern.exec(said)?.[1] ?? 0);
  const operations = number(/(\d+) requests in/);
  const perSecond = number(/Requests\/sec:\s+([\d.]+)/);
  const refused = number(/Non-2xx or 3xx responses: (\d+)/);
  const [, ...failed] =
    /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(said) ?? [];
  if (refused > 0 || failed.some((count) => Number(count) > 0) || operations === 0)
    throw new Error(`Not all answers were good:\n${said}`);
  return { operations, seconds: operations / perSecond };
}
