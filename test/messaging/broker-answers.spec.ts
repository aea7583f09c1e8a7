import { protocolErrors, protocolErrorsCodesById } from '@platformatic/kafka';
import {
  adviceFor,
  brokerAnswer,
  BrokerAnswerError,
  refusalReason,
} from '../../src/messaging/kafka/broker-answers.js';
import { brokerErrorName } from '../../src/messaging/kafka/protocol/error-names.js';

const known = Object.entries(protocolErrorsCodesById).filter(([code]) => code !== '0');

it('calls every error of a broker as Kafka does', () => {
  const named = known.filter(([code]) => Number(code) <= 113);
  expect(named.length).toBeGreaterThan(100);
  for (const [code, name] of named) expect([code, brokerErrorName(Number(code))]).toEqual([code, name]);
});

it('has a name for an error that is newer than it', () => {
  expect(brokerErrorName(9999)).toBe('error 9999');
  expect(brokerAnswer(brokerErrorName(9999))).toBe('again');
  expect(refusalReason(brokerErrorName(9999))).toBeUndefined();
});

it.each([
  ['NOT_LEADER_OR_FOLLOWER', 'again', undefined],
  ['NOT_ENOUGH_REPLICAS', 'again', undefined],
  ['REQUEST_TIMED_OUT', 'again', undefined],
  ['COORDINATOR_LOAD_IN_PROGRESS', 'again', undefined],
  ['UNKNOWN_TOPIC_OR_PARTITION', 'not-yet', 'no-topic'],
  ['TOPIC_AUTHORIZATION_FAILED', 'not-yet', 'not-allowed'],
  ['CLUSTER_AUTHORIZATION_FAILED', 'not-yet', 'not-allowed'],
  ['INVALID_TOPIC_EXCEPTION', 'not-yet', 'no-topic'],
  ['MESSAGE_TOO_LARGE', 'refused', 'too-large'],
  ['RECORD_LIST_TOO_LARGE', 'refused', 'too-large'],
  ['INVALID_RECORD', 'refused', 'invalid'],
  ['POLICY_VIOLATION', 'refused', 'invalid'],
  ['GROUP_AUTHORIZATION_FAILED', 'fatal', undefined],
  ['SASL_AUTHENTICATION_FAILED', 'fatal', undefined],
] as const)('%s is %s, and refuses a record as %s', (name, answer, reason) => {
  expect(Object.keys(protocolErrors)).toContain(name);
  expect(brokerAnswer(name)).toBe(answer);
  expect(refusalReason(name)).toBe(reason);
});

it('says what to grant where a permission is missing', () => {
  const error = new BrokerAnswerError('people.create, partition 3', 'TOPIC_AUTHORIZATION_FAILED');
  expect(error.message).toBe(
    'people.create, partition 3: Kafka has answered TOPIC_AUTHORIZATION_FAILED; grant this client Describe, and Read or Write, on the topic.',
  );
  expect(adviceFor('NOT_LEADER_OR_FOLLOWER')).toBeUndefined();
});
