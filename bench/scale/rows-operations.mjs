import { dataJsonOf, seededId } from '../harness/people.mjs';
import { namesakesOf, PAGE, pageAt } from './large-table.mjs';

/** Names of new people are spread over those that are there, in all tables alike: an index has to take them anywhere. */
const NAMES = 10_000_000;

const random = (below) => Math.floor(Math.random() * below);
const pagesBetween = (from, to) => (rows) => {
  const last = namesakesOf(rows) - PAGE - 1;
  return { method: 'GET', path: `/people${pageAt(Math.floor(last * (from + Math.random() * (to - from))))}` };
};

/** A new person, as a body and as a line of NDJSON. */
export const newLine = () => `{"name":"Person ${random(NAMES)}","data":${dataJsonOf(random(NAMES))}}`;

/** The requests of each, on a table of so many rows; an import is one request, and each of its people an operation. */
export const OPERATIONS = [
  {
    key: 'get',
    title: 'get by id',
    request: (rows) => ({ method: 'GET', path: `/people/${seededId(random(rows))}` }),
  },
  { key: 'first', title: `page of ${PAGE}, the first`, request: pagesBetween(0, 0) },
  { key: 'middle', title: `page of ${PAGE}, in the middle`, request: pagesBetween(0.4, 0.6) },
  { key: 'last', title: `page of ${PAGE}, of the last tenth`, request: pagesBetween(0.9, 1) },
  { key: 'create', title: 'create', request: () => ({ method: 'POST', path: '/people', body: newLine() }) },
  { key: 'import', title: 'NDJSON import, a person', isImport: true },
];
