import type { LoggerService } from '@nestjs/common';
import { type DestinationStream, type Logger, pino } from 'pino';

/** Nest's own reports of what it found while starting: of use to whoever looks for a fault there. */
const STARTUP_CONTEXTS = new Set(['InstanceLoader', 'NestFactory', 'RouterExplorer', 'RoutesResolver', 'NestApplication', 'NestMicroservice']); // prettier-ignore
const SECRETS = ['password', 'authorization', 'secret', 'token', 'sasl'];

/**
 * Nest's logger, writing one line of JSON an entry to standard output. An entry is a text, or an object with `msg` and
 * fields; an error is written with its causes, but without the statement and its values, which hold people's data.
 */
export class JsonLogger implements LoggerService {
  private readonly pino: Logger;

  /** @param destination takes the lines in place of standard output */
  constructor(level: string, destination: DestinationStream = pino.destination({ fd: 1, sync: true })) {
    const options = {
      level,
      base: undefined,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label: string) => ({ level: label }) },
      serializers: { err: serializeError },
      redact: SECRETS.flatMap((name) => [name, `*.${name}`]),
    };
    this.pino = pino(options, destination);
  }

  log(message: unknown, ...rest: unknown[]): void {
    this.write(STARTUP_CONTEXTS.has(contextOf(rest) ?? '') ? 'debug' : 'info', message, rest);
  }
  error(message: unknown, ...rest: unknown[]): void {
    this.write('error', message, rest);
  }
  warn(message: unknown, ...rest: unknown[]): void {
    this.write('warn', message, rest);
  }
  debug(message: unknown, ...rest: unknown[]): void {
    this.write('debug', message, rest);
  }
  verbose(message: unknown, ...rest: unknown[]): void {
    this.write('trace', message, rest);
  }
  fatal(message: unknown, ...rest: unknown[]): void {
    this.write('fatal', message, rest);
  }

  private write(
    level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace',
    message: unknown,
    rest: unknown[],
  ): void {
    if (!this.pino.isLevelEnabled(level)) return;
    const context = contextOf(rest);
    const stack = rest.length > 1 && typeof rest[0] === 'string' ? { stack: rest[0] } : {};
    const fields = message instanceof Error ? { err: message } : typeof message === 'object' ? message : {};
    const text = typeof message === 'string' ? message : undefined;
    this.pino[level]({ ...(context && { context }), ...stack, ...fields }, text);
  }
}

/** Nest's loggers put their context last. */
const contextOf = (rest: unknown[]) =>
  typeof rest.at(-1) === 'string' ? (rest.at(-1) as string) : undefined;

const CAUSES_AT_MOST = 5;

function serializeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error) || depth > CAUSES_AT_MOST) return String(error);
  const { name: type, message, stack, cause } = error;
  const { code, driverError } = error as Error & { code?: unknown; driverError?: unknown };
  const inner = cause ?? driverError;
  return {
    type,
    message,
    ...(code !== undefined && { code }),
    stack,
    ...(inner !== undefined && { cause: serializeError(inner, depth + 1) }),
  };
}
