import path from 'node:path';
import { NODE_FLAGS } from '../harness/node-flags.mjs';
import { jdbcUrl } from '../harness/peers.mjs';
import { versionOf } from '../harness/versions.mjs';

const here = (...parts) => path.join(import.meta.dirname, ...parts);
const PEOPLE = [here('../../dist/src/main.js')];

const node = (args, more = {}) => ({
  program: (_, env) => ({
    command: process.execPath,
    args: [...NODE_FLAGS, ...args],
    env: { ...env, ...more },
  }),
});
const people = (more) => node(PEOPLE, { LOG_LEVEL: 'warn', KAFKA_TOPIC_PARTITIONS: '4', ...more });
const stockNest = (more) => ({
  ...node(['--import', '@swc-node/register/esm-register', here('kafka/stock-nest.ts')], more),
  version: () => `@nestjs/microservices ${versionOf('@nestjs/microservices')}`,
});
const byHand = (file) => ({
  ...node([here('kafka', file)]),
  version: () => `kafkajs ${versionOf('kafkajs')}`,
});
const rust = (more) => ({
  peers: 'rust',
  program: (peers, env) => ({ command: peers.program, env: { ...env, ...more } }),
  version: ({ versionOf: of }) => `rdkafka ${of('rdkafka')}, tokio-postgres ${of('tokio-postgres')}`,
});
const spring = (listener) => ({
  peers: 'spring',
  program: ({ jar }, env) => ({
    command: 'java',
    args: ['-jar', jar],
    env: { ...env, JDBC_URL: jdbcUrl(env.DATABASE_URL), PEER_KAFKA: listener },
  }),
  version: (peers) => `Spring Boot ${peers.versionOf()}`,
});

/** The first is what the others are compared with; `promise` is what each keeps when it is killed in the midst of it. */
export const CONTESTANTS = [
  { key: 'people', title: 'nestjs-people', promise: 'once, with an event for each', ...people({}) },
  {
    key: 'people-no-events',
    title: 'nestjs-people without events',
    promise: 'once',
    ...people({ PEOPLE_EVENTS: 'off' }),
  },
  {
    key: 'stock-nest',
    title: 'Nest’s server, @EventPattern, TypeORM repository',
    promise: 'at least once',
    ...stockNest({}),
  },
  {
    key: 'stock-nest-4',
    title: 'the same, four partitions at once',
    promise: 'at least once',
    ...stockNest({ PARTITIONS_AT_ONCE: '4' }),
  },
  {
    key: 'each-message',
    title: 'kafkajs eachMessage, an INSERT each',
    promise: 'at least once',
    ...byHand('each-message.mjs'),
  },
  {
    key: 'each-batch',
    title: 'kafkajs eachBatch, an INSERT of 1000 rows',
    promise: 'at least once',
    ...byHand('each-batch.mjs'),
  },
  {
    key: 'rust-transaction',
    title: 'Rust: the article’s stack, a transaction per message',
    promise: 'may lose: commits offsets by the clock',
    ...rust({}),
  },
  {
    key: 'rust-prepared',
    title: 'Rust: the same, one prepared statement',
    promise: 'may lose: commits offsets by the clock',
    ...rust({ AUTOCOMMIT: '1' }),
  },
  {
    key: 'spring-record',
    title: 'Spring Boot, a record per transaction',
    promise: 'at least once',
    ...spring('record'),
  },
  {
    key: 'spring-batch',
    title: 'Spring Boot, a poll per transaction',
    promise: 'at least once',
    ...spring('batch'),
  },
];
