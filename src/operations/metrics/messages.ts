import type { Registry } from 'prom-client';
import {
  messageChannels,
  type MessageHandled,
  type MessagesFetched,
  type OutboxRefused,
  type OutboxRelayed,
} from '../../messaging/telemetry/message-events.js';
import { type ChannelListeners, listenTo } from './channels.js';
import { Counts, OTHER } from './counts.js';
import { Histogram, type Series } from './histogram.js';

/** A message takes from less than a millisecond to as long as its handler may. */
const HANDLING_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
/** What was away for the night is handled a day late. */
const AGE_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400];
const TOPICS_AT_MOST = 100;

/**
 * Counts what becomes of messages and events, from their `diagnostics_channel`s: the process's, whichever transport has them.
 *
 * @returns ends that
 */
export function countMessages(registry: Registry): () => void {
  const fetched = new Counts({
    name: 'people_messages_fetched_total',
    help: 'Messages that have come from the broker; one that is delivered again is counted again.',
    ...{ labelNames: ['topic'], registry },
  });
  const handled = new Counts({
    name: 'people_messages_total',
    help:
      'Attempts at messages, by what became of them: applied, repeated (handled before), rejected (its sender was told an error), ' +
      'dead (a dead letter), parked (in the database, behind others of its key), retried; and by the code of the error.',
    ...{ labelNames: ['topic', 'outcome', 'code'], registry },
  });
  const duration = ofTopics(
    new Histogram({
      name: 'people_message_duration_seconds',
      help: 'Time of an attempt at a message, or at the batch that it is of.',
      buckets: HANDLING_SECONDS,
      registry,
    }),
  );
  const age = ofTopics(
    new Histogram({
      name: 'people_message_age_seconds',
      help: 'Time from the timestamp of a message to the commit of its effect.',
      buckets: AGE_SECONDS,
      registry,
    }),
  );
  const relayed = new Counts({
    name: 'people_outbox_relayed_total',
    help: 'Events and dead letters of the outbox that the brokers have taken; one that is sent again is counted again.',
    ...{ labelNames: ['topic'], registry },
  });
  const refused = new Counts({
    name: 'people_outbox_refused_total',
    help: 'Attempts at events of the outbox that the brokers have refused, by reason.',
    ...{ labelNames: ['topic', 'reason'], registry },
  });
  const late = new Counts({
    name: 'people_kafka_late_answers_total',
    help: 'Requests that a broker has answered 3 s late or more, behind the time for which it was asked to wait, or not at all.',
    ...{ labelNames: [], registry },
  });
  // So that a rate begins with the first of them.
  late.add(0);
  const listeners: ChannelListeners<typeof messageChannels> = {
    fetched: ({ topic, messages }: MessagesFetched) => fetched.add(messages, topic),
    handled: ({ topic, outcome, code, durationMs, ageMs }: MessageHandled) => {
      handled.add(1, topic, outcome, outcome === 'repeated' ? '' : code);
      if (durationMs !== undefined && outcome !== 'parked') duration(topic).observe(durationMs / 1000);
      if (ageMs !== undefined && outcome === 'applied') age(topic).observe(ageMs / 1000);
    },
    relayed: ({ topic, events }: OutboxRelayed) => relayed.add(events, topic),
    refused: ({ topic, reason }: OutboxRefused) => refused.add(1, topic, reason),
    late: () => late.add(1),
  };
  return listenTo(messageChannels, listeners);
}

/** The series of each topic, of so many topics. */
function ofTopics(histogram: Histogram): (topic: string) => Series {
  const series = new Map<string, Series>();
  return (topic) => {
    const name = series.has(topic) || series.size < TOPICS_AT_MOST ? topic : OTHER;
    let known = series.get(name);
    if (!known) series.set(name, (known = histogram.labels({ topic: name })));
    return known;
  };
}
