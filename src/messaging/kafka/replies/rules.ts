import { ApplicationError, InvalidInputError, unchanged } from '../../../errors/application-error.js';
import { DEAD_LETTER_SUFFIX } from '../../dead-letters/letter.js';
import type { ReplyAddress } from '../../delivery.js';
import { plainText } from '../../../errors/plain-text.js';
import { RECORD_LIMITS } from '../../records/limits.js';

/** The sender wants its reply where no replies go; the message was not handled. HTTP 403. */
export class ReplyTopicRefusedError extends ApplicationError {
  constructor(topic: string, why: string) {
    super(`${unchanged(`Replies don't go to the topic ${plainText(topic)}: ${why}`)} Name a topic of your own in kafka_replyTopic.`, {
      type: 'reply-topic-refused',
      status: 403,
    }); // prettier-ignore
  }
}

/** What a broker takes as the name of a topic. */
const TOPIC_NAME = /^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$/;
const INTERNAL = '__';
const LONGEST_CORRELATION_ID = 1000;
/** One that is longer than headers may be is not sent back, with an error either. */
const LONGEST_SENT_BACK = RECORD_LIMITS.headerBytes;

export interface ReplyTopics {
  /** Names, or beginnings of names that end with `*`. undefined: any topic but those below. */
  allowed: readonly string[] | undefined;
  /** Topics that are read or written here: whoever may send to one must not have this service write to another. */
  own: readonly (string | RegExp)[];
}

/**
 * Why a message is not to be handled as a request. A sender chooses the topic of its reply, and the service writes there with
 * its own rights: an event, a command or a dead letter that it has not made could be forged so.
 */
export function replyRefusal(
  { topic, correlationId, partition }: ReplyAddress,
  { allowed, own }: ReplyTopics,
): ApplicationError | undefined {
  const refused = (why: string) => new ReplyTopicRefusedError(topic, why);
  if (!TOPIC_NAME.test(topic)) return refused('it is no name of a topic');
  if (topic.startsWith(INTERNAL)) return refused('it is internal to Kafka');
  if (topic.endsWith(DEAD_LETTER_SUFFIX)) return refused('it is for dead letters');
  if (own.some((pattern) => isNamedBy(pattern, topic))) return refused('this service has it for itself');
  if (allowed && !allowed.some((name) => isAllowedBy(name, topic))) return refused('it is not allowed');
  if (correlationId.length > LONGEST_CORRELATION_ID)
    return new InvalidInputError(
      `The header kafka_correlationId has ${correlationId.length} bytes; at most ${LONGEST_CORRELATION_ID} are expected.`,
    );
  if (partition !== undefined && Number.isNaN(partition))
    return new InvalidInputError(
      'The header kafka_replyPartition must be the number of a partition, in decimal digits or as an int of four bytes.',
    );
  return undefined;
}

/**
 * Where the sender of such a message is told: nowhere if replies don't go to its topic; any partition of that where the message
 * named none that can be read.
 */
export function addressOfRefusal(asked: ReplyAddress, refusal: ApplicationError): ReplyAddress | undefined {
  if (refusal instanceof ReplyTopicRefusedError || asked.correlationId.length > LONGEST_SENT_BACK)
    return undefined;
  const isReadable = !Number.isNaN(asked.partition ?? 0);
  return isReadable ? asked : { ...asked, partition: undefined };
}

const isNamedBy = (pattern: string | RegExp, topic: string) =>
  typeof pattern === 'string' ? pattern === topic : topic.search(pattern) !== -1;

const isAllowedBy = (name: string, topic: string) =>
  name.endsWith('*') ? topic.startsWith(name.slice(0, -1)) : name === topic;
