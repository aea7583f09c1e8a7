/**
 * What `npm test` runs: Jest, with the arguments that it was given. The whole suite is several runs side by side, each of a share
 * of the files and with servers of its own, as topics have fixed names: most of the time each waits for something.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

const SHARES = 3;
const jest = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js']; // prettier-ignore
const given = process.argv.slice(2);
const isWhole = given.length === 0 || given[0] === '--testPathIgnorePatterns';
const shares = isWhole ? Array.from({ length: SHARES }, (_, n) => [`--shard=${n + 1}/${SHARES}`]) : [[]];

const runs = shares.map((share) =>
  spawn(process.execPath, [...jest, ...share, ...given], { stdio: 'inherit' }),
);
// Ctrl-C reaches them as well, and each stops its servers.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => runs.forEach((run) => run.kill(signal)));
const codes = await Promise.all(runs.map(async (run) => (await once(run, 'exit'))[0] ?? 1));
process.exitCode = Math.max(...codes);
