import type { DataSource } from 'typeorm';

/** A table by its name, in the DataSource's schema. */
export function tableIn({ options }: DataSource, name: string): string {
  const schema = 'schema' in options && options.schema;
  return schema ? `"${schema}"."${name}"` : `"${name}"`;
}
