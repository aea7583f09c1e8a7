/**
 * What `npm test` runs: Jest, with the arguments that it was given. The whole suite is two runs side by side, each with servers
 * of its own: the tests that need the run's Kafka, whose topics have fixed names, and the others. Most of the time both wait.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

const jest = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', 'node_modules/jest/bin/jest.js']; // prettier-ignore
const given = process.argv.slice(2);
const isWhole = given.length === 0 || given[0] === '--testPathIgnorePatterns';
const parts = isWhole && process.env.KAFKA !== 'off' ? ['kafka', 'others'] : ['all'];

const runs = parts.map((TEST_PART) =>
  spawn(process.execPath, [...jest, ...given], { stdio: 'inherit', env: { ...process.env, TEST_PART } }),
);
// Ctrl-C reaches them as well, and each stops its servers.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => runs.forEach((run) => run.kill(signal)));
const codes = await Promise.all(runs.map(async (run) => (await once(run, 'exit'))[0] ?? 1));
process.exitCode = Math.max(...codes);
