import { EntitySchema, MikroORM } from '@mikro-orm/postgresql';

class Person {}

const schema = new EntitySchema({
  class: Person,
  tableName: 'people',
  properties: {
    id: { type: 'uuid', primary: true, defaultRaw: 'gen_random_uuid()' },
    name: { type: 'text' },
    data: { type: 'json', columnType: 'json', nullable: true },
  },
});

/** An entity manager of its own for each operation, as for each request; what is changed is flushed. */
export async function open({ databaseUrl, poolSize }) {
  const orm = await MikroORM.init({
    entities: [schema],
    clientUrl: databaseUrl,
    pool: { min: 0, max: poolSize },
  });
  return {
    get: (id) => orm.em.fork().findOneOrFail(Person, { id }),
    async create(given) {
      const em = orm.em.fork();
      const person = em.create(Person, given);
      await em.flush();
      return person;
    },
    async update(id, name) {
      const em = orm.em.fork();
      const person = await em.findOneOrFail(Person, { id });
      person.name = name;
      await em.flush();
      return person;
    },
    async remove(id) {
      const removed = await orm.em.fork().nativeDelete(Person, { id });
      if (removed !== 1) throw new Error(`${removed} people were removed.`);
    },
    close: () => orm.close(),
  };
}
