import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { banner } from './app/banner.js';
import { signalDescendants } from './app/child-processes.js';
import { EnvironmentError, readEnvironment } from './app/environment.js';
import { runUntilSignal } from './app/run-until-signal.js';
import { removeServices } from './app/services-file.js';
import { type Service, startService } from './app/start-service.js';

const say = (message: string) => process.stderr.write(`${message}\n`);

// Node says it in words; whoever reads the log is to see it as well.
process.on('uncaughtExceptionMonitor', (err, origin) =>
  new Logger('Process').fatal({ msg: 'the process ends, as nobody has caught an error', origin, err }),
);

// However this process ends, unless it is killed: nothing that it started stays behind. After a proper stop nothing is left.
process.on('exit', () => {
  signalDescendants('SIGKILL');
  removeServices();
});

let isRunning = false;
try {
  const environment = readEnvironment();
  const { auth, database } = environment;
  const progress = { step: '' };
  const start = async (aborted: AbortSignal) => {
    const service = await startService(environment, say, aborted, progress);
    isRunning = true;
    if (environment.isProduction) tellPlaces(service);
    else say(banner(service, { auth, ownDatabase: database.url !== undefined }));
    return service;
  };
  await runUntilSignal(start, say, {
    timeoutMs: environment.shutdownTimeoutMs,
    delayMs: environment.shutdownDelayMs,
    underWay: () => progress.step,
  });
  // Not left to the event loop: some library's timer would keep a stopped service alive.
  process.exit(0);
} catch (error) {
  if (error instanceof EnvironmentError) say(error.message);
  else
    say(
      `${isRunning ? 'The service did not stop as it should.' : 'The service did not start.'}\n${explain(error)}`,
    );
  process.exit(1);
}

/** In place of the banner, for whoever reads the log. */
function tellPlaces({ http, management }: Service): void {
  new Logger('Service').log({ msg: 'the service is running', http, ...(management && { management }) });
}

/** An error and its causes, each on a line of its own. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node's error for a host with several addresses has no text of its own.
  const parts =
    error instanceof AggregateError ? error.errors : error.cause === undefined ? [] : [error.cause];
  const text = error.message || parts.map(explain).join('; ');
  return error.message && parts.length > 0
    ? `${text}${parts.map((part) => `\n  because: ${explain(part)}`).join('')}`
    : text;
}
