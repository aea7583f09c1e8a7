import { context, propagation, SpanKind, trace } from '@opentelemetry/api';
import { Kafka, logLevel } from 'kafkajs';

// Somebody else's consumer of people.events, in OpenTelemetry's words: its spans are children of those who sent the events.
const kafka = new Kafka({
  brokers: process.env.BROKERS.split(','),
  clientId: 'consumer',
  logLevel: logLevel.NOTHING,
});
const consumer = kafka.consumer({ groupId: process.env.GROUP });
await consumer.connect();
await consumer.subscribe({ topics: ['people.events'], fromBeginning: true });
await consumer.run({
  eachMessage: async ({ message: { headers } }) => {
    const carrier = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
    const parent = propagation.extract(context.active(), carrier);
    trace.getTracer('consumer').startSpan('consume event', { kind: SpanKind.CONSUMER }, parent).end();
  },
});
