import { versionOf } from '../harness/versions.mjs';

const ofPeers = (name) => (peers) => `${name} ${peers.versionOf(name)}`;
const ours = (name) => () => `${name} ${versionOf(name)}`;
/** The first is what the others are compared with. */
export const CONTESTANTS = [
  { key: 'people-service', title: 'nestjs-people, PeopleService', file: 'contestants/people-service.mjs' },
  { key: 'raw-pg', title: 'pg, named statement', file: 'contestants/raw-pg.mjs', version: ours('pg') },
  {
    key: 'raw-pg-transaction',
    title: 'pg, named statement, BEGIN … COMMIT',
    file: 'contestants/raw-pg-transaction.mjs',
    version: ours('pg'),
  },
  {
    key: 'typeorm-repository',
    title: 'TypeORM repository in a transaction',
    file: 'contestants/typeorm-repository.mjs',
    version: ours('typeorm'),
  },
  {
    key: 'postgres-js',
    title: 'postgres.js',
    peers: 'node',
    file: 'peers/node/postgres-js.mjs',
    version: ofPeers('postgres'),
  },
  {
    key: 'drizzle',
    title: 'Drizzle, prepared',
    peers: 'node',
    file: 'peers/node/drizzle.mjs',
    version: ofPeers('drizzle-orm'),
  },
  {
    key: 'kysely',
    title: 'Kysely',
    peers: 'node',
    file: 'peers/node/kysely.mjs',
    version: ofPeers('kysely'),
  },
  {
    key: 'prisma',
    title: 'Prisma',
    peers: 'node',
    file: 'peers/node/prisma.mjs',
    version: ofPeers('@prisma/client'),
  },
  {
    key: 'mikro-orm',
    title: 'MikroORM',
    peers: 'node',
    file: 'peers/node/mikro-orm.mjs',
    version: ofPeers('@mikro-orm/core'),
  },
];
