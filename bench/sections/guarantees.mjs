import { CONTESTANTS } from '../contestants/of-guarantees.mjs';
import { timeInProcess } from '../harness/in-process.mjs';
import { operationTables } from '../report/operation-tables.mjs';

const OPERATIONS = ['get', 'create', 'update'];

/** What each guarantee of PeopleService costs, beside PeopleService without it. */
export async function run(bench) {
  const result = await timeInProcess(bench, { contestants: CONTESTANTS, operations: OPERATIONS });
  const tables = operationTables(result, { operations: OPERATIONS, many: '32 callers', one: 'One caller' });
  console.log([...result.about, tables].join('\n\n'));
}
