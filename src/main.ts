import 'reflect-metadata';
import { banner } from './app/banner.js';
import { EnvironmentError, readEnvironment } from './app/environment.js';
import { runUntilSignal } from './app/run-until-signal.js';
import { startService } from './app/start-service.js';

const say = (message: string) => process.stderr.write(`${message}\n`);

try {
  const environment = readEnvironment();
  await runUntilSignal(async () => {
    const service = await startService(environment, say);
    say(banner(service));
    return service;
  }, say);
} catch (error) {
  say(error instanceof EnvironmentError ? error.message : `The service did not start.\n${explain(error)}`);
  process.exitCode = 1;
}
// Whatever a failed start or a library left open must not keep the process.
process.exit();

function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause ? `${error.message}\n  because: ${explain(error.cause)}` : error.message;
}
