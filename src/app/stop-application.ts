import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Server } from 'node:http';
import { DataSource } from 'typeorm';
import { endsWithin } from '../messaging/waiting.js';
import { KafkaTransport } from '../messaging/kafka.transport.js';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import type { Environment } from './settings.js';
import { type HttpRequests, watchRequests } from './http/requests.js';

const LOOK_EVERY_MS = 50;

/** What a part of stopping may take, in ms since the delay is over in which everything is served: each part has ended, or is cut, when the next one's time comes. */
export interface StopTimes {
  /** Messages, and units of work. */
  drainMs: number;
  /** Kafka, also where the brokers hang; and then HTTP. */
  doorsMs: number;
  /** The application with its pool. */
  applicationMs: number;
  /** The embedded servers, and so everything. */
  allMs: number;
}

/** Shares out what `SHUTDOWN_DELAY_MS` leaves of `SHUTDOWN_TIMEOUT_MS`. */
export function stopTimesOf({
  shutdownTimeoutMs,
  shutdownDelayMs,
}: Pick<Environment, 'shutdownTimeoutMs' | 'shutdownDelayMs'>): StopTimes {
  const leftMs = shutdownTimeoutMs - shutdownDelayMs;
  return {
    drainMs: Math.ceil(leftMs * 0.7),
    doorsMs: Math.ceil(leftMs * 0.8),
    applicationMs: Math.ceil(leftMs * 0.9),
    allMs: Math.ceil(leftMs * 0.97),
  };
}

/**
 * Has the application closed, whatever hangs, by the time that it has.
 *
 * @param hasKafka the application has a KafkaTransport
 * @returns closes it; throws Error naming what was left at the deadline
 */
export function stopperOf(
  app: NestFastifyApplication,
  hasKafka: boolean,
  { doorsMs, applicationMs }: StopTimes,
): () => Promise<void> {
  const server: Server = app.getHttpServer();
  const requests = watchRequests(server);
  const kafka = hasKafka ? app.get(KafkaTransport) : undefined;
  const transactions = app.get(TransactionRunner, { strict: false });
  return async () => {
    const since = performance.now();
    let requestsCut = 0;
    const looking = setInterval(() => {
      requests.endIdle();
      if (!server.listening && performance.now() - since > doorsMs) requestsCut += requests.cut();
    }, LOOK_EVERY_MS);
    const hasEnded = await endsWithin(applicationMs, app.close()).finally(() => clearInterval(looking));
    const messages = kafka?.unfinished ?? 0;
    const units = transactions.unfinished;
    const steps = (kafka?.unfinishedSteps ?? []).map((step) => `Kafka (${step})`);
    if (!hasEnded) steps.push(hangingPartOf(app, server, requests));
    if (messages + units + requestsCut + steps.length === 0) return;
    throw new Error(
      `Not all that ran ended in time. Units of work that were cut: ${units}; messages that come again: ${messages}.` +
        (requestsCut > 0 ? ` HTTP requests that were cut: ${requestsCut}.` : '') +
        (steps.length > 0 ? ` What did not end: ${steps.join(', ')}.` : ''),
    );
  };
}

/** Nest closes the parts one after another; which it was at can be told by what is open still. */
function hangingPartOf(app: NestFastifyApplication, server: Server, requests: HttpRequests): string {
  if (server.listening) return 'units of work';
  if (requests.running > 0) return 'HTTP';
  return app.get(DataSource, { strict: false }).isInitialized ? 'the database' : 'the application';
}

/** Something that was started, and how it is stopped. */
export interface Started {
  name: string;
  stop: () => unknown;
  /** Stopped together with the other servers, behind all that uses them. */
  isServer?: boolean;
}

/** What a service is at, for whoever gives up waiting for it. */
export interface Progress {
  step: string;
}

/**
 * In the opposite order of `started`: servers outlive the application that uses them. One that fails, or hangs until the deadline,
 * does not keep the others up.
 *
 * @throws AggregateError of what did not stop as it should
 */
export async function stopAll(
  { started, progress }: { started: Started[]; progress: Progress },
  withinMs: number,
): Promise<void> {
  const deadline = performance.now() + withinMs;
  const failures: unknown[] = [];
  const end = async ({ name, stop }: Started) => {
    progress.step = `stopping ${name}`;
    try {
      const isOver = await endsWithin(deadline - performance.now(), Promise.resolve(stop()));
      if (!isOver) failures.push(new Error(`It did not end in time, and is killed: ${name}.`));
    } catch (error) {
      failures.push(error);
    }
  };
  const steps = started.splice(0).reverse();
  for (const step of steps) if (!step.isServer) await end(step);
  await Promise.all(steps.filter(({ isServer }) => isServer).map(end));
  if (failures.length > 0) throw new AggregateError(failures, 'The service did not stop cleanly.');
}
