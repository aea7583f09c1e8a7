import { WrongAnswerError } from '../harness/check.mjs';
import { personOf, seededId, toJson } from '../harness/people.mjs';

/** Every so many people have one name, so that there is a list to go through whose length is a part of the table's. */
const NAMESAKES_EVERY = 10;
export const POPULAR = 'Popular';
/** People of one INSERT, so that a run can be interrupted. */
const SLICE = 1_000_000;
const INDEX = 'people_name_id_idx';

/** Person number `n` as `personOf` makes it; the server makes ten million of them in a minute. */
const FILL = `
  INSERT INTO people (id, name, data)
  SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n % ${NAMESAKES_EVERY} = 0 THEN '${POPULAR}' ELSE 'Person ' || n END,
    format(
      '{"many_many_fields":%s,"number":%s,"email":"person-%s@example.com","active":%s,"address":{"street":"Long Lane %s",'
        '"city":"Springfield","postcode":"AB %s"},"tags":["newsletter","early-bird","group-%s"],"note":"Prefers to be called in the morning."}',
      18446744073709551615 - n, n, n, CASE WHEN n % 3 <> 0 THEN 'true' ELSE 'false' END, n % 200, 1000 + n % 9000, n % 50
    )::json
  FROM generate_series($1::bigint, $2::bigint) n`;

/** How many people have the popular name. */
export const namesakesOf = (rows) => rows / NAMESAKES_EVERY;
/** The id of number `n` of them, in the order of the list. */
export const namesakeId = (n) => seededId(n * NAMESAKES_EVERY);

/** Fills the table of people of a database, and leaves it as one that autovacuum has looked after. */
export async function fillTable({ say, interrupted }, postgres, { database, rows }) {
  say(`${rows} people are made …`);
  const [{ indexdef }] = await postgres.query(
    database,
    'SELECT indexdef FROM pg_indexes WHERE indexname = $1',
    [INDEX],
  );
  // It is built in a fraction of the time that its entries take one by one.
  await postgres.query(database, `DROP INDEX ${INDEX}`);
  for (let from = 0; from < rows; from += SLICE) {
    interrupted.throwIfAborted();
    await postgres.query(database, FILL, [from, Math.min(from + SLICE, rows) - 1]);
  }
  await postgres.query(database, indexdef);
  await postgres.query(database, 'VACUUM ANALYZE people');
  await postgres.checkpoint();
}

/** Takes away what was created over HTTP: their ids begin with the time, those of the others with zeros. */
export async function removeNew(postgres, database) {
  await postgres.query(database, `DELETE FROM people WHERE id > '00000001-0000-0000-0000-000000000000'`);
  await postgres.query(database, 'VACUUM people');
}

/** @throws WrongAnswerError when the service does not answer what was to be made */
export async function checkTable({ title, url, rows }) {
  const answer = async (where) => (await fetch(`${url}/people${where}`)).text();
  for (const n of [1, rows / 2 + 1, rows - 1]) {
    const right = toJson({ id: seededId(n), ...personOf(n) });
    const given = await answer(`/${seededId(n)}`);
    if (given !== right) throw new WrongAnswerError(`${title}: ${given} where this is right:\n${right}`);
  }
  for (const n of [0, namesakesOf(rows) / 4]) {
    const { items, next } = JSON.parse(await answer(pageAt(n)));
    if (items.length !== PAGE || items.some(({ id }, index) => id !== namesakeId(n + index)) || !next)
      throw new WrongAnswerError(
        `${title}: the page from ${n} on is not that of the namesakes from there on.`,
      );
  }
}

export const PAGE = 100;

/** The query of the page that begins with number `n` of the namesakes. */
export function pageAt(n) {
  const cursor = Buffer.from(namesakeId(n).replaceAll('-', ''), 'hex').toString('base64url');
  return `?name=${POPULAR}&limit=${PAGE}${n > 0 ? `&cursor=${cursor}` : ''}`;
}
