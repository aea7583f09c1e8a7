// app/init/: What adds PeopleModule to an application that is there: `nestjs-people init`, and `nest add` by the same plan.
// Promises: asked for twice, it changes nothing the second time; what it does not understand is left, and said.
// May know: the syntax of TypeScript, asked of the application's own compiler; nothing else of src, nor Nest.

import { addDependencies } from './dependencies.js';
import { InitError } from './init-error.js';
import { type Main, prepareMain } from './main-file.js';
import { addPeople, hasPeople } from './people-module.js';
import { type Change, Project, type ProjectFiles } from './project.js';
import { dataSourceFor, type PeoplesDataSource } from './type-orm.js';

/** What is to be done to an application. */
export interface Plan {
  changes: Change[];
  /** What a program can't do: sentences that say where to write what. */
  byHand: string[];
  /** Whether packages are to be installed. */
  installs: boolean;
}

/**
 * Looks at an application, and says what makes it one with people in it. Nothing is written.
 *
 * @param sourceRoot the folder of the application's sources; default: what nest-cli.json says, else `src`
 * @throws InitError it is no application that can be changed: why, and what to do
 */
export function planInit(files: ProjectFiles, sourceRoot?: string): Plan {
  const project = new Project(files, sourceRoot);
  addDependencies(project);
  const main = prepareMain(project);
  project.attempt(main.rootModule.source, () => addModules(project, main));
  const { changes, byHand } = project;
  return { changes, byHand, installs: changes.some(({ name }) => name === 'package.json') };
}

function addModules(project: Project, main: Main): void {
  const isThere = hasPeople(project);
  let dataSource: PeoplesDataSource;
  try {
    dataSource = dataSourceFor(project, main);
  } catch (error) {
    // Whoever has written it by hand knows which DataSource it is.
    if (isThere && error instanceof InitError) return;
    throw error;
  }
  if (!isThere) addPeople(main, dataSource);
  if (dataSource.newModule) addDatabaseUrl(project);
}

/** The setting that the added lines read. */
function addDatabaseUrl(project: Project): void {
  const name = '.env.example';
  const text = project.text(name) ?? '';
  if (/^\s*(export\s+)?DATABASE_URL=/m.test(text)) return;
  const end = text === '' || text.endsWith('\n') ? '' : '\n';
  project.write(name, `${text}${end}DATABASE_URL=postgres://postgres:password@localhost:5432/postgres\n`);
}
