import { jdbcUrl } from '../harness/peers.mjs';
import { versionOf } from '../harness/versions.mjs';

const rust = (more) => (peers, env) => ({ command: peers.program, env: { ...env, ...more } });
const rustVersion = ({ versionOf: of }) =>
  ['axum', 'tokio', 'tokio-postgres', 'deadpool-postgres'].map((name) => `${name} ${of(name)}`).join(', ');
const ours = (name) => () => `${name} ${versionOf(name)}`;
/** The first is what the others are compared with. */
export const CONTESTANTS = [
  { key: 'people-http', title: 'nestjs-people, the service', file: 'contestants/people-http.mjs' },
  {
    key: 'rust-transaction',
    title: 'Rust: the article’s stack, a transaction per request',
    peers: 'rust',
    program: rust({}),
    version: rustVersion,
  },
  {
    key: 'rust-prepared',
    title: 'Rust: the same, one prepared statement',
    peers: 'rust',
    program: rust({ AUTOCOMMIT: '1' }),
    version: rustVersion,
  },
  {
    key: 'spring',
    title: 'Spring Boot, JdbcClient, @Transactional',
    peers: 'spring',
    program: ({ jar }, env) => ({
      command: 'java',
      args: ['-jar', jar],
      env: { ...env, JDBC_URL: jdbcUrl(env.DATABASE_URL) },
    }),
    version: (peers) => `Spring Boot ${peers.versionOf()}`,
    // Its compiler is slower than the others to see what matters.
    warmUp: 4,
  },
  {
    key: 'bare-fastify',
    title: 'Fastify and pg, named statement',
    file: 'contestants/bare-fastify.mjs',
    version: ours('fastify'),
  },
  {
    key: 'stock-nest',
    title: 'Nest on Express, ValidationPipe, TypeORM repository in a transaction',
    file: 'contestants/stock-nest.ts',
    version: ours('express'),
  },
];
