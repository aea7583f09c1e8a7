import { CONTESTANTS } from '../contestants/of-service.mjs';
import { timeInProcess } from '../harness/in-process.mjs';
import { operationTables } from '../report/operation-tables.mjs';

export const title = 'Service: one operation on one person, in the process';

const OPERATIONS = ['get', 'create', 'update', 'remove'];

/** What the operations of PeopleService cost beside other ways to do the same from Node. */
export const run = (bench) => timeInProcess(bench, { contestants: CONTESTANTS, operations: OPERATIONS });

export const render = (result) =>
  operationTables(result, { operations: OPERATIONS, many: '32 callers', one: 'One caller' });
