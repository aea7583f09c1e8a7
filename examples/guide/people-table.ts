import pg from 'pg';
import { Column, DataSource, Entity, PrimaryGeneratedColumn } from 'typeorm';

/** A pool as the first step has it. */
export function openPool(): pg.Pool {
  const pool = new pg.Pool({
    connectionString: process.env.DATABASE_URL,
    max: 10,
    connectionTimeoutMillis: 2000,
  });
  pool.on('error', (error) => console.error('an idle connection was lost:', error.message));
  return pool;
}

/** The table of the whole guide. */
export const createPeople = (pool: pg.Pool) =>
  pool.query(`
    CREATE TABLE people (
      id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
      name text NOT NULL,
      data json
    )`);

/** The same table for TypeORM. */
@Entity('people')
export class PersonRow {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('text')
  name!: string;

  @Column('json', { nullable: true })
  data!: object | null;
}

/** TypeORM on its own, without Nest. */
export const openTypeOrm = () =>
  new DataSource({
    type: 'postgres',
    url: process.env.DATABASE_URL,
    entities: [PersonRow],
    installExtensions: false, // gen_random_uuid() is built in
  }).initialize();
