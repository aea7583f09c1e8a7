import { type BatchHandler, batchHandlerOf } from '../consuming/batch-handlers.js';
import type { HandlerExtras } from '../consuming/handled-call.js';
import { type Delivery, laneKeyOf, sizeOf } from '../delivery.js';
import { identityOf } from '../message-identity.js';
import { withinLimits } from '../records/limits.js';
import type { IncomingRecord } from '../records/record.js';
import { firstHeadersOf, unreadRecordError } from '../records/unread.js';
import type { NestServer } from './handler-calls.js';
import { replyAddressOf } from './replies/address.js';
import { addressOfRefusal, replyRefusal, type ReplyTopics } from './replies/rules.js';
import type { TransportSettings } from './transport-options.js';

/** Makes messages of records: who handles each, what names it, where its reply goes, and why it is not to be handled. */
export function deliveriesFor(
  settings: TransportSettings,
  server: NestServer,
): (fetched: IncomingRecord) => Delivery {
  const { groupId, limits, store, replyTopics: allowed, eventTopics = [] } = settings;
  const handlersOfBatches = batchHandlersFor(settings);
  let replyTopics: ReplyTopics | undefined;
  return (fetched) => {
    // Known once the handlers are.
    replyTopics ??= { allowed, own: [...server.patterns(), ...eventTopics] };
    const record = withinLimits(fetched, limits);
    const handler = server.handlerOf(record.topic);
    const { digestHeaders } = (handler?.extras ?? {}) as HandlerExtras;
    const message = identityOf(record, groupId, digestHeaders);
    const headers = record.unread ? firstHeadersOf(record.unread) : record.headers;
    const asked = handler?.isEventHandler ? undefined : replyAddressOf({ headers });
    const refused = asked && replyRefusal(asked, replyTopics);
    const refusal = record.unread ? unreadRecordError(record, record.unread) : refused;
    const replyTo = refused ? addressOfRefusal(asked, refused) : asked;
    const isBatchable = store !== undefined && handler?.extras?.batchable === true;
    const batchHandler = isBatchable && !refusal ? handlersOfBatches?.(record.topic) : undefined;
    return {
      record,
      message,
      handler,
      isBatchable,
      batchHandler,
      replyTo,
      refusal,
      laneKey: laneKeyOf(record),
      bytes: sizeOf(record),
      attempts: 0,
      assignment: 0,
    };
  };
}

/** They read values as they came: whoever has these deserialized has each message handled by itself. */
function batchHandlersFor({
  store,
  batchHandlers,
  deserializer,
}: TransportSettings): ((topic: string) => BatchHandler | undefined) | undefined {
  if (!batchHandlers || !store || deserializer) return undefined;
  const { dataSource } = store.transactions;
  return (topic) => batchHandlerOf(dataSource, topic);
}
