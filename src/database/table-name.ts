import type { DataSource } from 'typeorm';

/** A table by its name, in the DataSource's schema. */
export function tableIn({ options }: DataSource, name: string): string {
  const schema = 'schema' in options && options.schema;
  return schema ? `"${schema}"."${name}"` : `"${name}"`;
}

const migratedLater = new WeakSet<DataSource>();

/** Its tables come once the application has started: that they are not there yet is nothing to tell of. */
export const migratesLater = (dataSource: DataSource) => void migratedLater.add(dataSource);

export const isMigratedLater = (dataSource: DataSource): boolean => migratedLater.has(dataSource);

/** Those of these tables that are not there. @throws what the database says */
export async function absentTables(dataSource: DataSource, names: readonly string[]): Promise<string[]> {
  const absent = await dataSource.query<{ table: string }[]>(
    'SELECT name AS table FROM unnest($1::text[]) name WHERE to_regclass(name) IS NULL',
    [names.map((name) => tableIn(dataSource, name))],
  );
  return absent.map(({ table }) => table);
}
