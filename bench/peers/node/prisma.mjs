import { PrismaPg } from '@prisma/adapter-pg';
import client from './node_modules/.bench-prisma/index.js';

/** Its client without an engine of its own, over its adapter for pg. */
export async function open({ databaseUrl, poolSize }) {
  const adapter = new PrismaPg({ connectionString: databaseUrl, max: poolSize });
  const prisma = new client.PrismaClient({ adapter });
  await prisma.$connect();
  return {
    get: (id) => prisma.person.findUniqueOrThrow({ where: { id } }),
    create: (data) => prisma.person.create({ data }),
    update: (id, name) => prisma.person.update({ where: { id }, data: { name } }),
    remove: async (id) => void (await prisma.person.delete({ where: { id } })),
    close: () => prisma.$disconnect(),
  };
}
