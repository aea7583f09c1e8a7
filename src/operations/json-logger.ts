// operations/logs/: Lines of the log on their way out, and how many of them there are.
// Promises: nobody waits for whoever reads the log; memory is bounded, and what was dropped is counted and told.
// May know: errors/, pino, and how routes for people on call are made.

import type { LoggerService } from '@nestjs/common';
import { type DestinationStream, type Logger, pino } from 'pino';
import { shown, TEXT_CHARACTERS } from '../errors/shown.js';
import { currentIds } from '../tracing/trace-context.js';
import { BoundedOutput, standardOutput } from './logs/bounded-output.js';
import type { LevelChange, Leveled, LogLevel } from './logs/level.js';

/** Nest's own reports of what it found while starting: of use to whoever looks for a fault there. */
const STARTUP_CONTEXTS = new Set(['InstanceLoader', 'NestFactory', 'RouterExplorer', 'RoutesResolver', 'NestApplication', 'NestMicroservice']); // prettier-ignore
const SECRETS = ['password', 'authorization', 'secret', 'token', 'sasl'];

/**
 * Nest's logger, writing one line of JSON an entry to standard output, which nobody waits for. An entry is a text, or an object with `msg` and
 * fields; an error is written with its causes, but without the statement and its values, which hold people's data. Texts
 * are cut at 2,000 characters, and so are lists at 100 entries: whatever is logged, a line stays a line.
 */
export class JsonLogger implements LoggerService, Leveled {
  private readonly pino: Logger;

  /** @param destination takes the lines in place of standard output */
  constructor(
    level: string,
    private readonly destination: DestinationStream = standardOutput(),
  ) {
    const options = {
      level,
      base: undefined,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label: string) => ({ level: label }) },
      // pino's own would make another of what `bounded` made of an error.
      serializers: { err: (error: unknown) => error },
      redact: SECRETS.flatMap((name) => [name, `*.${name}`]),
    };
    this.pino = pino(options, destination);
  }

  /** The least severe lines that are written. */
  get level(): LogLevel {
    return this.pino.level as LogLevel;
  }

  /** From now on. The line that says so is written at any level: it is what is kept of who did it. */
  setLevel(level: LogLevel, change: LevelChange): void {
    const entry = { from: this.level, to: level, ...change };
    if (!this.pino.isLevelEnabled('info')) this.pino.level = 'info';
    this.log({ msg: 'the level of the log is another', ...entry });
    this.pino.level = level;
  }

  /** Lines that were dropped since the start, as whoever reads the log did not take them. */
  get droppedLines(): number {
    return this.destination instanceof BoundedOutput ? this.destination.dropped : 0;
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
    const text = typeof message === 'string' ? shown(message, TEXT_CHARACTERS) : undefined;
    this.pino[level](
      bounded({ ...(context && { context }), ...currentIds(), ...stack, ...fields }) as object,
      text,
    );
  }
}

/** Nest's loggers put their context last. */
const contextOf = (rest: unknown[]) =>
  typeof rest.at(-1) === 'string' ? (rest.at(-1) as string) : undefined;

const CAUSES_AT_MOST = 5;
const ENTRIES_AT_MOST = 100;
const DEPTH_AT_MOST = 5;

/** A copy of what is to be logged whose texts and lists are of a bounded size. */
function bounded(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return shown(value, TEXT_CHARACTERS);
  if (typeof value === 'bigint') return shown(String(value));
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Error) return serializeError(value);
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`;
  if (depth > DEPTH_AT_MOST) return '…';
  if (hasToJson(value)) return bounded(value.toJSON(), depth + 1);
  if (Array.isArray(value)) return value.slice(0, ENTRIES_AT_MOST).map((item) => bounded(item, depth + 1));
  const entries = Object.entries(value).slice(0, ENTRIES_AT_MOST);
  return Object.fromEntries(entries.map(([key, item]) => [shown(key), bounded(item, depth + 1)]));
}

const hasToJson = (value: object): value is { toJSON(): unknown } =>
  'toJSON' in value && typeof value.toJSON === 'function';

function serializeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error) || depth > CAUSES_AT_MOST) return shown(textOf(error), TEXT_CHARACTERS);
  const { name: type, message, stack = '', cause } = error;
  const { code, driverError } = error as Error & { code?: unknown; driverError?: unknown };
  const inner = cause ?? driverError;
  const short = shown(message, TEXT_CHARACTERS);
  return {
    type,
    message: short,
    ...(code !== undefined && { code: bounded(code) }),
    // It begins with the message, which would leave no room for the places behind it.
    stack: shown(short === message ? stack : stack.replace(message, () => short), 2 * TEXT_CHARACTERS),
    ...(inner !== undefined && { cause: serializeError(inner, depth + 1) }),
  };
}

/** Of what is no error; nothing of it can make a line fail. */
function textOf(value: unknown): string {
  try {
    return String(value);
  } catch {
    return typeof value;
  }
}
