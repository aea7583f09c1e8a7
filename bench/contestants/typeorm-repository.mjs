import 'reflect-metadata';
import { DataSource } from 'typeorm';
import { Person } from '../../dist/src/index.js';

/** The same entity by TypeORM's own means: its repository, in its transaction. */
export async function open({ databaseUrl, poolSize }) {
  const dataSource = new DataSource({ type: 'postgres', url: databaseUrl, poolSize, entities: [Person] });
  await dataSource.initialize();
  const inTransaction = (act) => dataSource.transaction((manager) => act(manager.getRepository(Person)));
  return {
    get: (id) => inTransaction((people) => people.findOneByOrFail({ id })),
    create: (person) => inTransaction((people) => people.save(people.create(person))),
    update: (id, name) =>
      inTransaction(async (people) => {
        const person = await people.findOneByOrFail({ id });
        person.name = name;
        return people.save(person);
      }),
    remove: (id) =>
      inTransaction(async (people) => {
        const { affected } = await people.delete(id);
        if (affected !== 1) throw new Error(`${affected} people were removed.`);
      }),
    close: () => dataSource.destroy(),
  };
}
