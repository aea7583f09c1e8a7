import { InitError } from './init-error.js';
import type { Project } from './project.js';
import type { Call } from './literals.js';
import type { Source } from './source.js';

const PREPARE = 'preparePeopleHost';

/** Where the application begins. */
export interface Main {
  source: Source;
  /** The name of the module that it is made of, and the source of that. */
  rootModule: { name: string; source: Source };
}

/**
 * Has the application prepared for people before it listens.
 *
 * @throws InitError it is not seen where the application is made, or of which module
 */
export function prepareMain(project: Project): Main {
  const places = project
    .sourcesNaming('NestFactory')
    .flatMap((source) => source.calls().flatMap((call) => (isCreation(call) ? [{ source, call }] : [])));
  const named = places.filter(({ source }) => source.name === `${project.sourceRoot}/main.ts`);
  const [place, ...others] = named.length > 0 ? named : places;
  const folder = `${project.sourceRoot}/`;
  if (!place || others.length > 0)
    throw new InitError(
      `${place ? 'Several places' : 'No place'} of ${folder} ${place ? 'create' : 'creates'} an application by NestFactory.create: say which folder of sources is meant with --source-root.`,
    );
  const { source, call } = place;
  const name = call.arguments[0]?.text ?? '';
  const rootModule = /^\w+$/.test(name)
    ? source.decorator('Module', name)
      ? source
      : project.importedSource(source, name)
    : undefined;
  if (!rootModule)
    throw new InitError(
      `${source.name}: it is not seen which class the module ${name} is of. Write PeopleModule.forRoot() into its imports; the README of nestjs-people has the lines.`,
    );
  project.attempt(source, () => prepare(source, call));
  return { source, rootModule: { name, source: rootModule } };
}

function isCreation({ callee }: Call): boolean {
  return /^NestFactory\.create(<.*>)?$/.test(callee);
}

/** What is asked of the application between its creation and its first request. */
function prepare(source: Source, creation: Call): void {
  const { variable } = creation;
  const isPrepared = source.calls(source.localName('nestjs-people', PREPARE) ?? PREPARE).length > 0;
  const needsPreparing = !isPrepared && mayHaveRawBodies(creation);
  const hasHooks = source.calls(`${variable}.enableShutdownHooks`).length > 0;
  if (hasHooks && !needsPreparing) return;
  const statements = (name: string) => [
    ...(needsPreparing
      ? [`${PREPARE}(${name}); // large numbers, merge patches and NDJSON arrive as they were sent`]
      : []),
    ...(hasHooks ? [] : [`${name}.enableShutdownHooks(); // on SIGTERM, what runs is finished`]),
  ];
  const listen = variable === undefined ? undefined : source.calls(`${variable}.listen`)[0];
  if (!listen)
    throw new InitError(
      `${source.name}: it is not seen where the application begins to listen. Write before that:\n${statements('app').join('\n')}`,
    );
  if (needsPreparing) source.addImports('nestjs-people', [PREPARE]);
  for (const statement of statements(variable!)) listen.addBefore(statement);
}

/** People's bodies are left to people by themselves, unless the application keeps those of all its routes. */
function mayHaveRawBodies({ arguments: [, ...options] }: Call): boolean {
  return options
    .filter(({ text }) => !text.startsWith('new '))
    .some(
      ({ object }) => !object || object.hasSpread || (object.get('rawBody')?.text ?? 'false') !== 'false',
    );
}
