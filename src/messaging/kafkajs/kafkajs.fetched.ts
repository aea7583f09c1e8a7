import type { Kafka } from 'kafkajs';
import { decompress } from '../codecs.js';
import { type BatchReading, isBatchFormat, readBatches, type RecordBatchRead } from '../record-batches.js';
import type { RecordLimits, UnreadPart } from '../kafka-driver.js';
import { RecordReader } from '../record-reader.js';

const FETCH = 1;
/** From this version on records come in batches, and of aborted transactions it is told. */
const WITH_BATCHES = 4;
const CREATE_CLUSTER = 'private:Kafka:createCluster';

/** What kafkajs 2.2 has within, as far as it is touched here. */
interface Cluster {
  brokerPool: { createBroker: (options: unknown) => Broker };
}
interface Broker {
  fetch: (request: unknown) => Promise<unknown>;
  lookupRequest: (apiKey: number, definition: unknown) => (options: unknown) => Request;
}
interface Request {
  request: { apiVersion: number };
  response: { decode: (answer: Buffer) => Promise<unknown>; parse: (decoded: unknown) => Promise<unknown> };
}

/** A message that our decoder has made. */
export interface WithUnread {
  unread?: UnreadPart;
}

/**
 * Has the consumers of this client read fetched records by `readBatches`. kafkajs decodes an answer before anybody sees it, and
 * has no option for that: its own decoder copies all headers for each header, which takes 21 s for 10,000 of them, and
 * collects them in a plain object, where a header called `constructor` becomes an array with a function in it. So the answer's
 * decoder is replaced, in the brokers of this client and in nothing that others use too.
 *
 * @throws Error kafkajs is not built as version 2.2 is
 */
export function readRecordsOurselves(kafka: Kafka, limits: RecordLimits): void {
  const name = Object.getOwnPropertySymbols(kafka).find(({ description }) => description === CREATE_CLUSTER);
  if (!name) throw new Error('This version of kafkajs is not known; install kafkajs@2.2.4.');
  const client = kafka as unknown as Record<symbol, (options: unknown) => Cluster>;
  const createCluster = client[name]!;
  client[name] = (options) => {
    const cluster = createCluster(options);
    const { brokerPool } = cluster;
    const { createBroker } = brokerPool;
    brokerPool.createBroker = (settings) => withOurDecoder(createBroker(settings), limits);
    return cluster;
  };
}

/** `lookupRequest` is made anew with each connection, hence the look at it with each fetch. */
function withOurDecoder(broker: Broker, limits: RecordLimits): Broker {
  const { fetch } = broker;
  const lookupRequest: Broker['lookupRequest'] = (apiKey, definition) => {
    const create = broker.lookupRequest(apiKey, definition);
    if (apiKey !== FETCH) return create;
    return (options) => {
      const made = create(options);
      const { apiVersion } = made.request;
      if (apiVersion < WITH_BATCHES) return made;
      const { response } = made;
      const decode = (answer: Buffer) =>
        decodeFetch(answer, apiVersion, limits).then((decoded) => decoded ?? response.decode(answer));
      return { ...made, response: { ...response, decode } };
    };
  };
  const seenByFetch = Object.create(broker, { lookupRequest: { value: lookupRequest } }) as Broker;
  broker.fetch = (request) => fetch.call(seenByFetch, request);
  return broker;
}

/** As kafkajs' own decoders of versions 4 to 11 have it. @returns undefined where records are in the format before Kafka 0.11 */
async function decodeFetch(answer: Buffer, version: number, limits: RecordLimits): Promise<unknown> {
  const reader = new RecordReader(answer);
  const reading: BatchReading = { limits, left: limits.batchBytes, decompress };
  const clientSideThrottleTime = reader.int32();
  const errorCode = version >= 7 ? reader.int16() : 0;
  const sessionId = version >= 7 ? reader.int32() : 0;
  const responses = [];
  for (let topics = reader.int32(); topics > 0; topics--) {
    const topicName = reader.text();
    const partitions = [];
    for (let count = reader.int32(); count > 0; count--) {
      const head = partitionHead(reader, version);
      const records = reader.take(Math.max(0, reader.int32()));
      if (records.length > 0 && !isBatchFormat(records)) return undefined;
      const batches = await readBatches(records, reading);
      if (batches[0]?.undecodable) throw batches[0].undecodable.reason;
      const messages = batches.flatMap(messagesOf);
      partitions.push({ ...head, messages });
    }
    responses.push({ topicName, partitions });
  }
  return { throttleTime: 0, clientSideThrottleTime, errorCode, sessionId, responses };
}

function partitionHead(reader: RecordReader, version: number) {
  const head = {
    partition: reader.int32(),
    errorCode: reader.int16(),
    highWatermark: String(reader.int64()),
    lastStableOffset: String(reader.int64()),
    lastStartOffset: version >= 5 ? String(reader.int64()) : undefined,
  };
  const abortedTransactions = [];
  for (let count = reader.int32(); count > 0; count--)
    abortedTransactions.push({ producerId: String(reader.int64()), firstOffset: String(reader.int64()) });
  return { ...head, abortedTransactions, preferredReadReplica: version >= 11 ? reader.int32() : -1 };
}

/** As kafkajs' filters of control records and aborted transactions take them. */
function messagesOf({ records, producerId, isTransactional, isControl }: RecordBatchRead) {
  const batchContext = { producerId: String(producerId), inTransaction: isTransactional };
  return records.map((record) => ({
    ...record,
    offset: String(record.offset),
    isControlRecord: isControl,
    batchContext,
  }));
}
