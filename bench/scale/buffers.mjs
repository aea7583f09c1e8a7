import { peopleStatements } from '../../dist/src/people/people.statements.js';
import { dataJsonOf, seededId } from '../harness/people.mjs';
import { withClient } from '../harness/servers.mjs';
import { namesakeId, namesakesOf, PAGE, POPULAR } from './large-table.mjs';

const LOOKS = 50;
const random = (below) => Math.floor(Math.random() * below);
const newId = () =>
  `ffffffff-ffff-7fff-8fff-${random(2 ** 47)
    .toString(16)
    .padStart(12, '0')}`;

/** The service's own statements, with the values of one operation. */
function operationsOn(rows) {
  const { get, findByName, create } = peopleStatements('people');
  const last = namesakesOf(rows) - PAGE - 1;
  const page = (place) => () => findByName(POPULAR, namesakeId(Math.floor(last * place)), PAGE + 1);
  return [
    ['get by id', () => get(seededId(random(rows)))],
    ['page, the first', page(0)],
    ['page, in the middle', page(0.5)],
    ['page, the last', page(1)],
    ['create', () => create([newId(), `Person ${random(rows)}`, dataJsonOf(random(rows))], null)],
  ];
}

/** How many buffers each operation looks at, and how many of these had to be read into PostgreSQL's own; means of many looks. */
export function buffersOf(postgres, { database, rows }) {
  return withClient(postgres.urlOf(database), async (client) => {
    const result = { operations: [], touched: [], read: [] };
    for (const [name, statement] of operationsOn(rows)) {
      // The first one of a connection reads the catalog too.
      await explain(client, statement());
      let [touched, read] = [0, 0];
      for (let look = 0; look < LOOKS; look++) {
        const plan = await explain(client, statement());
        touched += plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
        read += plan['Shared Read Blocks'];
      }
      result.operations.push(name);
      result.touched.push(touched / LOOKS);
      result.read.push(read / LOOKS);
    }
    return result;
  });
}

/** What it is like to run it; what it writes is taken back. */
async function explain(client, { text, values }) {
  await client.query('BEGIN');
  try {
    const { rows } = await client.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${text}`, values);
    return rows[0]['QUERY PLAN'][0].Plan;
  } finally {
    await client.query('ROLLBACK');
  }
}
