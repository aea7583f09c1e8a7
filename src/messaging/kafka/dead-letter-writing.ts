import type { Logger } from '@nestjs/common';
import { causesOf } from '../dead-letters/cause.js';
import { deadLetterRecord, placeOnly, withPlaceOnly } from '../dead-letters/letter.js';
import type { KeyQuarantine } from '../dead-letters/quarantine.js';
import type { Delivery, Undeliverable } from '../delivery.js';
import { causeOf, classify, describe } from '../failure-policy.js';
import { type KafkaProducer, RecordRefusedError } from '../kafka-driver.js';
import type { MessageStore } from '../message-store.js';
import type { RefusedTopics } from '../outbox/refused-topics.js';
import type { IncomingRecord } from '../records/record.js';

/** Makes a message a dead letter. @throws it could not be written */
export type WriteDeadLetter = (delivery: Delivery, error: unknown) => Promise<void>;

/** Into the store; the relay sends it to the dead letter topic. */
export function storedDeadLetters(
  { deadLetters }: MessageStore,
  quarantine: KeyQuarantine,
  quarantinesKey: boolean,
  logger: Logger,
): WriteDeadLetter {
  return async (delivery, error) => {
    let isWhole = true;
    const causes = causesOf(causeOf(error));
    const add = (letter: Undeliverable) =>
      deadLetters.add(letter, describe(error), { quarantinesKey, causes });
    const isAdded = await add(delivery).catch((failure: unknown) => {
      const kind = classify(failure);
      if (kind === 'infrastructure' || kind === 'transient') throw failure;
      isWhole = false;
      logger.error({ msg: 'a dead letter could not be stored as it is; its place is', err: failure });
      return add(withPlaceOnly(delivery));
    });
    if (isAdded) delivery.outcome = 'dead';
    else delivery.isRepeated = true;
    if (!isAdded) quarantine.fresh.markStale();
    else if (quarantinesKey && isWhole) quarantine.add(delivery);
  };
}

/** To the dead letter topic directly, where there is no store. */
export function sentDeadLetters(
  connected: () => KafkaProducer | undefined,
  refusedTopics: RefusedTopics,
): WriteDeadLetter {
  return async (delivery, error) => {
    const { record, attempts } = delivery;
    const producer = connected();
    if (!producer) throw new Error('Not connected.');
    const send = async (what: IncomingRecord) => {
      const letter = deadLetterRecord(what, describe(error), attempts);
      try {
        await producer.send([letter]);
        refusedTopics.taken(letter.topic);
      } catch (refusal) {
        if (refusal instanceof RecordRefusedError) refusedTopics.refused(letter.topic, refusal);
        throw refusal;
      }
    };
    try {
      await send(record);
    } catch (refusal) {
      if (!(refusal instanceof RecordRefusedError && refusal.isTooLarge)) throw refusal;
      // A dead letter without the message says where it is; its own topic still has it.
      await send(placeOnly(record));
    }
    delivery.outcome = 'dead';
  };
}
