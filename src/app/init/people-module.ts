import { InitError } from './init-error.js';
import type { Main } from './main-file.js';
import type { Project } from './project.js';
import type { PeoplesDataSource } from './type-orm.js';

/** Whether some module of the application has people. */
export function hasPeople(project: Project): boolean {
  return project.sourcesNaming('nestjs-people').some((source) => {
    const name = source.localName('nestjs-people', 'PeopleModule');
    const isCalled = (method: string) => source.calls(`${name}.${method}`).length > 0;
    return name !== undefined && (isCalled('forRoot') || isCalled('forRootAsync'));
  });
}

/**
 * Adds people to the root module, and the DataSource where it is a new one.
 *
 * @throws InitError the imports of the root module are not seen
 */
export function addPeople({ rootModule: { name, source } }: Main, dataSource: PeoplesDataSource): void {
  const options = dataSource.name === undefined ? '' : `{ dataSource: '${dataSource.name}' }`;
  const added = [...(dataSource.newModule ? [dataSource.newModule] : []), `PeopleModule.forRoot(${options})`];
  const metadata = source.decorator('Module', name)?.object;
  const imports = metadata?.get('imports');
  if (imports?.array) imports.array.add(added);
  else if (metadata && !imports && !metadata.hasSpread) metadata.add([`imports: [${listed(added)}\n]`], 0);
  else
    throw new InitError(
      `${source.name}: the imports of ${name} are not written in its @Module() as a list. Write into them:\n${added.join(',\n')}`,
    );
  source.addImports('nestjs-people', ['PeopleModule']);
}

const listed = (items: readonly string[]) =>
  items.map((item) => `\n  ${item.replaceAll('\n', '\n  ')},`).join('');
