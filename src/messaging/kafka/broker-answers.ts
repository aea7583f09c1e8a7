import type { RefusalReason } from '../kafka-driver.js';

/**
 * What an error that a broker answers means for whoever has asked.
 *
 * - `again`: the same request may be taken in a moment, by the same broker or by another (its leader has moved, it is busy).
 * - `not-yet`: it is taken once somebody has changed something: made a topic, granted a permission. It is tried again at
 *   leisure, and what does not concern that topic, partition or group goes on meanwhile.
 * - `refused`: this record is not taken, and others may be.
 * - `fatal`: nothing that this client asks for is taken as it is set up now.
 */
export type BrokerAnswer = 'again' | 'not-yet' | 'refused' | 'fatal';

/**
 * By Kafka's name of the error (`org.apache.kafka.common.protocol.Errors`). One that is not in the table is `again`: it says
 * that the broker is in a state that passes, or it is newer than this table.
 */
const ANSWERS: Readonly<Record<string, BrokerAnswer>> = {
  // Of one record.
  MESSAGE_TOO_LARGE: 'refused',
  RECORD_LIST_TOO_LARGE: 'refused',
  INVALID_RECORD: 'refused',
  INVALID_TIMESTAMP: 'refused',
  UNSUPPORTED_FOR_MESSAGE_FORMAT: 'refused',
  POLICY_VIOLATION: 'refused',
  // Of one topic or partition.
  INVALID_TOPIC_EXCEPTION: 'not-yet',
  UNKNOWN_TOPIC_OR_PARTITION: 'not-yet',
  UNKNOWN_TOPIC_ID: 'not-yet',
  INCONSISTENT_TOPIC_ID: 'not-yet',
  TOPIC_AUTHORIZATION_FAILED: 'not-yet',
  CLUSTER_AUTHORIZATION_FAILED: 'not-yet',
  OFFSET_OUT_OF_RANGE: 'not-yet',
  CORRUPT_MESSAGE: 'not-yet',
  INVALID_REPLICATION_FACTOR: 'not-yet',
  INVALID_PARTITIONS: 'not-yet',
  INVALID_CONFIG: 'not-yet',
  THROTTLING_QUOTA_EXCEEDED: 'not-yet',
  // Of the group, or of all.
  GROUP_AUTHORIZATION_FAILED: 'fatal',
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: 'fatal',
  SASL_AUTHENTICATION_FAILED: 'fatal',
  UNSUPPORTED_SASL_MECHANISM: 'fatal',
  ILLEGAL_SASL_STATE: 'fatal',
  SECURITY_DISABLED: 'fatal',
  UNSUPPORTED_VERSION: 'fatal',
  INVALID_GROUP_ID: 'fatal',
  INVALID_SESSION_TIMEOUT: 'fatal',
  INCONSISTENT_GROUP_PROTOCOL: 'fatal',
  GROUP_MAX_SIZE_REACHED: 'fatal',
  INVALID_REQUIRED_ACKS: 'fatal',
};

/** Why a record is refused that was answered so when it was sent; undefined where it is to be sent again. */
const REFUSALS: Readonly<Record<string, RefusalReason>> = {
  MESSAGE_TOO_LARGE: 'too-large',
  RECORD_LIST_TOO_LARGE: 'too-large',
  INVALID_RECORD: 'invalid',
  INVALID_TIMESTAMP: 'invalid',
  UNSUPPORTED_FOR_MESSAGE_FORMAT: 'invalid',
  POLICY_VIOLATION: 'invalid',
  INVALID_TOPIC_EXCEPTION: 'no-topic',
  UNKNOWN_TOPIC_OR_PARTITION: 'no-topic',
  UNKNOWN_TOPIC_ID: 'no-topic',
  TOPIC_AUTHORIZATION_FAILED: 'not-allowed',
  CLUSTER_AUTHORIZATION_FAILED: 'not-allowed',
};

/** What an error means that a broker has answered. @param name as Kafka calls it, `TOPIC_AUTHORIZATION_FAILED` */
export const brokerAnswer = (name: string): BrokerAnswer => ANSWERS[name] ?? 'again';

/** Why a record is refused that a broker has answered so; undefined: it is sent again. */
export const refusalReason = (name: string): RefusalReason | undefined => REFUSALS[name];

/** What an operator can do about an answer; undefined where waiting is all there is to do. */
export const adviceFor = (name: string): string | undefined => ADVICE[name];

const ADVICE: Readonly<Record<string, string>> = {
  TOPIC_AUTHORIZATION_FAILED: 'grant this client Describe, and Read or Write, on the topic',
  GROUP_AUTHORIZATION_FAILED: 'grant this client Read on the group',
  CLUSTER_AUTHORIZATION_FAILED: 'grant this client Create on the cluster, or make the topic',
  SASL_AUTHENTICATION_FAILED: 'check the user name, the password and the mechanism',
  UNSUPPORTED_SASL_MECHANISM: 'choose a mechanism that the brokers have enabled',
  UNKNOWN_TOPIC_OR_PARTITION: 'make the topic',
  INVALID_REPLICATION_FACTOR: 'choose a replication factor that the cluster has brokers for',
};

/** A broker has answered with an error. What it means is in {@link brokerAnswer}. */
export class BrokerAnswerError extends Error {
  /** Always `BrokerAnswerError`. */
  override readonly name = 'BrokerAnswerError';

  constructor(
    /** What was asked, or for what: `JoinGroup`, `people.create, partition 3`. */
    about: string,
    /** As Kafka calls it. */
    readonly answer: string,
    options?: ErrorOptions,
  ) {
    const advice = adviceFor(answer);
    super(`${about}: Kafka has answered ${answer}${advice ? `; ${advice}` : ''}.`, options);
  }
}
