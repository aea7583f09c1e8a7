import 'reflect-metadata';
import { setTimeout as sleep } from 'node:timers/promises';
import { SetWriter } from '../../dist/src/people/messages/set-writes.js';
import { PeopleService } from '../../dist/src/people/people.service.js';

// Loaded ahead of the service: some updates, by the end of the name that they set, are slow, or fail for reasons that have
// nothing to do with the database. `once` is once in each process.

const SLOW_MS = 400;

/** A port that nobody listens on, as nothing that is no superuser's may. */
const refused = () => fetch('http://127.0.0.1:9/');
const failed = (message, properties) => () => Promise.reject(Object.assign(new Error(message), properties));

const ONCE = {
  refused,
  conflict: failed('of another database', { code: '40001', severity: 'ERROR' }),
  terminated: failed('of another database', { code: '57P01', severity: 'FATAL' }),
  lost: failed('Connection terminated unexpectedly'),
};
const met = new Set();

async function meet(id, name) {
  const hazard = String(name).split('-')[1];
  if (hazard === 'slow') return sleep(SLOW_MS);
  if (hazard === 'hopeless') return refused();
  const place = `${id} ${name}`;
  if (!Object.hasOwn(ONCE, hazard ?? '') || met.has(place)) return undefined;
  met.add(place);
  return ONCE[hazard]();
}

const { update } = PeopleService.prototype;
PeopleService.prototype.update = async function (id, changes, options) {
  await meet(id, changes?.name);
  return update.call(this, id, changes, options);
};

// Messages that came together are not handled by the service.
const { write } = SetWriter.prototype;
SetWriter.prototype.write = async function (writes) {
  for (const { kind, row } of writes) if (kind === 'update') await meet(row.id, row.name);
  return write.call(this, writes);
};
