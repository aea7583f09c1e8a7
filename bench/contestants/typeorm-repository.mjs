import 'reflect-metadata';
import { DataSource } from 'typeorm';
import { Person } from '../../dist/src/index.js';

/** The same entity by TypeORM's own means: its repository, in its transaction. */
export async function open({ databaseUrl, poolSize }) {
  const dataSource = new DataSource({ type: 'postgres', url: databaseUrl, poolSize, entities: [Person] });
  await dataSource.initialize();
  return {
    get: (id) => dataSource.transaction((manager) => manager.getRepository(Person).findOneByOrFail({ id })),
    create: (person) =>
      dataSource.transaction((manager) => {
        const repository = manager.getRepository(Person);
        return repository.save(repository.create(person));
      }),
    close: () => dataSource.destroy(),
  };
}
