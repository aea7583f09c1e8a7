import { execFile } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { versionOf } from '../harness/versions.mjs';

const execute = promisify(execFile);

async function timed(act) {
  const begin = performance.now();
  await act();
  return (performance.now() - begin) / 1000;
}

/** The first is what the others are compared with. `take` resolves with the seconds that an import took. */
export const CONTESTANTS = [
  {
    key: 'people-http',
    title: 'nestjs-people, NDJSON over HTTP',
    file: 'contestants/people-http.mjs',
    take: ({ contestant, files, rows, upload }) => upload({ url: contestant.url, file: files?.ndjson, rows }),
  },
  {
    key: 'psql',
    title: 'psql \\copy, ids of the column’s default',
    find: async () => {
      try {
        return `psql ${/\d[\d.]*/.exec((await execute('psql', ['--version'])).stdout)[0]}`;
      } catch {
        return undefined;
      }
    },
    take: ({ databaseUrl, files }) =>
      timed(() =>
        execute('psql', ['-qXd', databaseUrl, '-c', `\\copy people (name, data) FROM '${files.copy}'`]),
      ),
  },
  {
    key: 'copy-by-hand',
    title: 'pg-copy-streams by hand, ids of the column’s default',
    find: async () => `pg-copy-streams ${versionOf('pg-copy-streams')}`,
    take: async ({ databaseUrl, files }) => {
      const client = new pg.Client(databaseUrl);
      await client.connect();
      try {
        return await timed(() =>
          pipeline(
            createReadStream(files.copy),
            client.query(copyFrom('COPY people (name, data) FROM STDIN')),
          ),
        );
      } finally {
        await client.end();
      }
    },
  },
];
