import type { InjectionToken, Provider } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import { getDataSourceToken } from '@nestjs/typeorm';
import { DataSource } from 'typeorm';

/** A DataSource of the application under a token of ours; where there is none of the name, the start is refused with those that are. */
export function providedDataSource(provide: InjectionToken, name: string | undefined): Provider {
  const token = getDataSourceToken(name) as InjectionToken;
  return {
    provide,
    inject: [ModulesContainer, { token, optional: true }],
    useFactory: (modules: ModulesContainer, found: DataSource | undefined): DataSource => {
      if (found) return found;
      const names = namesOfDataSources(modules);
      const isThere = [...modules.values()].some(({ providers }) => providers.has(token));
      // Then it is told why it could not be made.
      if (isThere && names.includes(name ?? DEFAULT_NAME))
        throw new Error(`The DataSource ${name ?? DEFAULT_NAME} could not be made.`);
      const others = names.length > 0 ? `has ${names.join(', ')}` : 'has none';
      throw new Error(
        name === undefined
          ? `There is no default DataSource; the application ${others}. ` +
              "Import TypeOrmModule.forRoot({ … }) in the root module, or name one: forRoot({ dataSource: '…' })."
          : `There is no DataSource of the name '${name}' (option dataSource); the application ${others}. ` +
              `Import TypeOrmModule.forRoot({ name: '${name}', … }) in the root module, or give the name of one that is there.`,
      );
    },
  };
}

/** TypeORM's name of the DataSource that has none. */
export const DEFAULT_NAME = 'default';
const SUFFIX = 'DataSource';

function namesOfDataSources(modules: ModulesContainer): string[] {
  const tokens = [...modules.values()]
    .filter(({ metatype }) => metatype.name === 'TypeOrmCoreModule')
    .flatMap(({ providers }) => [...providers.keys()]);
  return tokens.flatMap((token) => {
    if (token === DataSource) return [DEFAULT_NAME];
    return typeof token === 'string' && token.endsWith(SUFFIX) ? [token.slice(0, -SUFFIX.length)] : [];
  });
}
