import type { Logger } from '@nestjs/common';
import { MessageFailures } from '../consuming/failures.js';
import { InfrastructureWait } from '../consuming/infrastructure-wait.js';
import { MessageLanes } from '../consuming/lanes.js';
import { LaneOverflow } from '../consuming/overflow.js';
import { MessageProcessor } from '../consuming/processor.js';
import { RestoredDatabase } from '../consuming/restored-database.js';
import { KeyQuarantine } from '../dead-letters/quarantine.js';
import { StoreUpkeep } from '../dead-letters/store-upkeep.js';
import { CrashSuspects } from '../dead-letters/suspects.js';
import { type Delivery, laneKeyOf } from '../delivery.js';
import { classify, describe, replyErrorOf } from '../failure-policy.js';
import type { MessageAnswer } from '../message-answer.js';
import type { MessageStore } from '../message-store.js';
import { OutboxRelay } from '../outbox-relay.js';
import type { IncomingRecord } from '../records/record.js';
import { WindowReplays } from '../replaying/window-replays.js';
import { type MessageOutcome, publishHandled } from '../telemetry/message-events.js';
import type { PartitionLag, TransportFigures } from '../telemetry/transport-figures.js';
import { runUntraced } from '../../tracing/trace-context.js';
import { Availability } from './availability.js';
import { KafkaConnection } from './connection.js';
import { sentDeadLetters, storedDeadLetters } from './dead-letter-writing.js';
import { deliveriesFor } from './deliveries.js';
import { type ConnectedClients, HandlerCalls, type NestServer } from './handler-calls.js';
import { MessageIntake } from './intake.js';
import { MessageReplies } from './replies/sending.js';
import type { TransportSettings } from './transport-options.js';

/** What a transport is made of, as far as its outside asks for it. */
export interface Transport {
  connection: KafkaConnection;
  availability: Availability;
  /** What it has at the moment. */
  figures: () => TransportFigures;
  /** @throws Error the brokers can't be asked */
  lag: () => Promise<PartitionLag[]>;
  /** undefined without a store. */
  replays: WindowReplays | undefined;
  /** undefined without a store. */
  restored: RestoredDatabase | undefined;
}

/** Messages that a batch handler is given at once, at most. */
const BATCH_HANDLER_SIZE = 500;

/**
 * Makes the parts of a transport, in an order in which each has what it needs. A message goes from the connection by the intake
 * into the lane of its key, from there by the processor to its handler, and its answer goes by the replies; what becomes of
 * one that fails is decided by the failures. The lanes are made first and begin to work last, as their work leads back to them.
 */
export function composeTransport(settings: TransportSettings, server: NestServer, logger: Logger): Transport {
  const { store, groupId, concurrency, batchSize, quarantineKeys } = settings;
  const { handlerTimeoutMs, maxReplyValues, maxAttempts, maxTransientAttempts } = settings;
  const stopping = new AbortController();
  const { signal } = stopping;
  const clients: ConnectedClients = {};

  const lanes = new MessageLanes({ concurrency, batchSize, batchHandlerSize: BATCH_HANDLER_SIZE });
  const toDelivery = deliveriesFor(settings, server);
  const intake = new MessageIntake({
    limits: { messages: settings.bufferMessages, bytes: settings.bufferBytes },
    consumer: () => clients.consumer,
    ...{ logger, lanes, toDelivery },
  });
  const availability = new Availability(intake, settings.stalledAfterMs, signal, logger);
  const replies = new MessageReplies(server.serialize, () => clients.producer, signal, {
    timeoutMs: settings.replyTimeoutMs,
    bufferBytes: settings.replyBufferBytes,
    isReachable: () => availability.down === undefined,
  });
  const answer = (delivery: Delivery, what: MessageAnswer) =>
    replies.send(delivery, what, () => intake.done(delivery));

  const infrastructure = new InfrastructureWait({ ...{ store, logger, intake }, stopping: signal });
  const quarantine = store && quarantineFor(store, settings, { intake, toDelivery, answer, infrastructure });
  const crashes = store && new CrashSuspects(store, groupId, settings.sessionTimeoutMs);
  const writeDeadLetter =
    store && quarantine
      ? storedDeadLetters(store, quarantine, quarantineKeys, logger)
      : sentDeadLetters(() => clients.producer, availability.refusedTopics);

  const finish = (delivery: Delivery, what: MessageAnswer) => {
    delivery.outcome ??= 'handled';
    publishHandled(delivery, outcomeOf(delivery, what), () => codeOf(what));
    if (delivery.backlog) quarantine?.ended(delivery);
    if (delivery.parkedAs !== undefined) return;
    if (delivery.replyTo) answer(delivery, what);
    else intake.done(delivery);
  };
  const failures = new MessageFailures({
    ...{ store, maxAttempts, maxTransientAttempts, infrastructure, finish, writeDeadLetter },
    held: intake.held,
  });
  const calls = new HandlerCalls({
    ...{ server, clients, handlerTimeoutMs, maxReplyValues },
    onRepeated: () => quarantine?.fresh.markStale(),
  });
  const processor = new MessageProcessor({
    ...{ store, calls, handlerTimeoutMs, finish, failures, quarantine, crashes },
  });
  const overflow = new LaneOverflow({
    lanes,
    source: intake.backpressure,
    limits: settings.laneLimits,
    park: quarantine && ((lane) => quarantine.parkLane(lane)),
    willBeParked: (delivery) => quarantine?.holds(delivery) === true,
  });
  intake.backpressure.onFull = () => overflow.look();
  lanes.start({
    handle: async (batch, settle) => {
      if (batch.some(({ replyTo }) => replyTo)) await replies.untilRoom();
      const begunAt = performance.now();
      for (const delivery of batch) delivery.begunAt = begunAt;
      // What is done around messages is nobody's; each of them has the trace that it came with.
      await runUntraced(() => processor.handle(batch, settle));
    },
    onWaiting: (lane) => overflow.waits(lane),
  });

  const upkeep =
    store && quarantine && crashes
      ? new StoreUpkeep({
          ...{ store, groupId, quarantine, crashes, logger },
          retentionMs: settings.inboxRetentionMs,
          committed: () => intake.offsets.committed,
        })
      : undefined;
  const relay = store && relayFor(store, settings, clients, availability);
  const replays =
    store &&
    new WindowReplays({
      ...{ store, batchSize, toDelivery, logger, consumer: groupId, limits: settings.limits },
      retentionMs: settings.inboxRetentionMs,
      driver: () => clients.driver,
      hasHandler: (topic) => server.handlerOf(topic) !== undefined,
      processor: (finishReplayed, held) =>
        new MessageProcessor({
          ...{ store, calls, handlerTimeoutMs, quarantine, crashes: undefined, finish: finishReplayed },
          failures: new MessageFailures({
            ...{ store, maxAttempts, maxTransientAttempts, infrastructure, writeDeadLetter, held },
            finish: finishReplayed,
          }),
        }),
    });
  const restored =
    store &&
    new RestoredDatabase({
      ...{ store, groupId, toDelivery, logger, retentionMs: settings.inboxRetentionMs },
      ...{ consumer: () => clients.consumer, stopping: signal },
    });
  const connection = new KafkaConnection({
    ...{ settings, server, logger, stopping, clients, lanes, intake, overflow },
    ...{ replies, availability, quarantine, crashes, upkeep, relay, replays, restored },
  });
  const figures = () => ({
    ...intake.figures,
    isConnected: clients.consumer !== undefined && availability.down === undefined,
    pendingReplies: replies.unacknowledged,
    partitionsAhead: restored?.partitionsAhead ?? 0,
  });
  return { connection, availability, figures, lag: () => intake.lag(), replays, restored };
}

function outcomeOf({ outcome, isRepeated, isRejected }: Delivery, what: MessageAnswer): MessageOutcome {
  if (outcome === 'dead' || outcome === 'parked') return outcome;
  if (isRepeated) return 'repeated';
  return isRejected || 'error' in what ? 'rejected' : 'applied';
}

const codeOf = (what: MessageAnswer): string => ('error' in what ? describe(what.error).code : '');

interface QuarantineParts {
  intake: MessageIntake;
  toDelivery: (record: IncomingRecord) => Delivery;
  answer: (delivery: Delivery, what: MessageAnswer) => void;
  infrastructure: InfrastructureWait;
}

function quarantineFor(
  store: MessageStore,
  { groupId: consumer, concurrency }: TransportSettings,
  { intake, toDelivery, answer, infrastructure }: QuarantineParts,
): KeyQuarantine {
  return new KeyQuarantine({
    ...{ store, consumer, concurrency },
    partitions: () => intake.offsets.partitions,
    readmit: (record, parkedAs, attempts, backlog) => {
      // In a lane of its own: new messages of the key are parked behind the backlog and need not wait for it.
      const laneKey = `parked ${laneKeyOf(record)}`;
      const parked = { laneKey, parkedAs, attempts, backlog, replyTo: undefined };
      const delivery = { ...toDelivery(record), ...parked };
      intake.readmit(delivery);
      return delivery;
    },
    stored: (delivery) => {
      publishHandled(delivery, 'parked');
      intake.done(delivery);
    },
    refuse: (delivery, error) => {
      if (intake.held.isForgotten(delivery)) return;
      publishHandled(delivery, 'rejected', () => describe(error).code);
      answer(delivery, { error: replyErrorOf(error) });
    },
    onFailed: (error) => {
      if (classify(error) === 'infrastructure') infrastructure.waitFor(error);
    },
  });
}

function relayFor(
  { transactions, outbox }: MessageStore,
  { outboxPollMs }: TransportSettings,
  clients: ConnectedClients,
  { refusedTopics }: Availability,
): OutboxRelay {
  const producer = () => clients.relayProducer;
  return new OutboxRelay(
    transactions,
    outbox,
    transactions.dataSource,
    outboxPollMs,
    producer,
    refusedTopics,
  );
}
