import { readFileSync, statSync } from 'node:fs';
import { type Values, type Variable, VARIABLES } from './environment-variables.js';
import { type Environment, LOOPBACK, toEnvironment } from './settings.js';

/** A variable whose value is refused, or a combination of them that is. */
export class EnvironmentError extends Error {
  override readonly name = 'EnvironmentError';

  constructor(readonly problems: readonly string[]) {
    super(
      `The environment is not usable; nothing was started.\n${problems.map((problem) => `  ${problem}`).join('\n')}`,
    );
  }
}

/**
 * Reads the environment, all of it at once. A secret may be in a file: `DB_PASSWORD_FILE` in place of `DB_PASSWORD`, and so of each
 * variable that is one, as the images of Docker's own databases have it.
 *
 * @throws EnvironmentError naming each variable, what is wrong with its value and what is accepted
 */
export function readEnvironment(environment: NodeJS.ProcessEnv = process.env): Environment {
  const problems: string[] = [];
  const values = Object.fromEntries(
    Object.entries<Variable<unknown>>(VARIABLES).map(([name, definition]) => {
      const value = definition.secret ? secretOf(name, environment, problems) : environment[name];
      if (value === undefined || value === '') return [name, definition.default];
      const parsed = definition.parse(value);
      // A URL with a password may have been put where none belongs.
      const isSecret = definition.secret || /:[^/]*@/.test(value);
      const shown = isSecret ? 'its value' : `"${value.slice(0, SHOWN_CHARACTERS)}"`;
      if (parsed === undefined)
        problems.push(`${name}: ${shown} is not accepted; expected ${definition.accepted}`);
      return [name, parsed];
    }),
  ) as Values;
  // A combination is judged only when its parts are sound, or one mistake would be reported as two.
  if (problems.length === 0) problems.push(...contradictions(values));
  if (problems.length > 0) throw new EnvironmentError(problems);
  return toEnvironment(values);
}

/** The database of the environment, for tools that need nothing else of it. @throws EnvironmentError */
export const readDatabase = (environment: NodeJS.ProcessEnv = process.env): Environment['database'] =>
  readEnvironment({
    ...environment,
    KAFKA: 'off',
    EMBEDDED_KAFKA_PORT: '',
    HOST: '',
    AUTH: 'none',
    READINESS_GROUPS: '',
    SHUTDOWN_DELAY_MS: '',
    MANAGEMENT_PORT: '',
    MANAGEMENT_HOST: '',
  }).database;

const SHOWN_CHARACTERS = 200;
const SECRET_BYTES_AT_MOST = 65_536;

/** What the variable holds, or the file that its `…_FILE` names, without the line end behind it. */
function secretOf(name: string, environment: NodeJS.ProcessEnv, problems: string[]): string | undefined {
  const file = environment[`${name}_FILE`];
  if (!file) return environment[name];
  if (environment[name]) {
    problems.push(`${name}, ${name}_FILE: only one of them can be the value; leave the other out`);
    return undefined;
  }
  try {
    const { size } = statSync(file);
    const text = size > SECRET_BYTES_AT_MOST ? '' : readFileSync(file, 'utf8').replace(/\r?\n$/, '');
    if (text !== '') return text;
    problems.push(`${name}_FILE: the file has ${size} bytes; expected 1 to ${SECRET_BYTES_AT_MOST}`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    problems.push(
      `${name}_FILE: the file can't be read (${code}); expected the path of one that this process may read`,
    );
  }
  return undefined;
}

function* contradictions(values: Values): Generator<string> {
  const production = values.NODE_ENV === 'production';
  if (production && !values.DATABASE_URL && !values.DB_HOSTNAME) {
    yield 'DATABASE_URL: missing; in production set it, or DB_HOSTNAME and the other DB_* parts';
  }
  if (production && values.KAFKA === 'on' && !values.KAFKA_BROKERS) {
    yield 'KAFKA_BROKERS: missing; in production set it to host:port of the brokers, or set KAFKA=off';
  }
  if (values.EMBEDDED_POSTGRES_PORT && (production || values.DATABASE_URL || values.DB_HOSTNAME)) {
    yield 'EMBEDDED_POSTGRES_PORT: no PostgreSQL is embedded, as there is another database, or in production; leave it out';
  }
  if (values.EMBEDDED_KAFKA_PORT && (production || values.KAFKA_BROKERS || values.KAFKA === 'off')) {
    yield 'EMBEDDED_KAFKA_PORT: no Kafka is embedded, as there are other brokers, or none, or in production; leave it out';
  }
  if (values.KAFKA_SASL_MECHANISM && !(values.KAFKA_SASL_USERNAME && values.KAFKA_SASL_PASSWORD)) {
    yield 'KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: missing; KAFKA_SASL_MECHANISM needs both';
  }
  if (!values.AUTH && !LOOPBACK.test(values.HOST)) {
    yield `AUTH: missing; HOST=${values.HOST} can be reached from outside, so choose AUTH=jwt, or AUTH=none to let everybody in`;
  }
  if (values.KAFKA === 'off' && values.READINESS_GROUPS.includes('messages')) {
    yield 'READINESS_GROUPS: there are no messages with KAFKA=off; leave them out';
  }
  const { SHUTDOWN_DELAY_MS = 0, SHUTDOWN_TIMEOUT_MS } = values;
  if (SHUTDOWN_DELAY_MS >= SHUTDOWN_TIMEOUT_MS) {
    yield `SHUTDOWN_DELAY_MS: ${SHUTDOWN_DELAY_MS} leaves no time for what runs; it has to be less than SHUTDOWN_TIMEOUT_MS=${SHUTDOWN_TIMEOUT_MS}`;
  }
  const { MANAGEMENT_PORT, MANAGEMENT_HOST = values.HOST } = values;
  if (MANAGEMENT_PORT && MANAGEMENT_PORT === values.PORT && MANAGEMENT_HOST === values.HOST) {
    yield `MANAGEMENT_PORT: ${MANAGEMENT_PORT} is PORT as well; choose another`;
  }
  if (values.MANAGEMENT_HOST && MANAGEMENT_PORT === undefined) {
    yield 'MANAGEMENT_HOST: there is no MANAGEMENT_PORT; set it, or leave this out';
  }
  if (values.AUTH === 'jwt' && Number(!!values.AUTH_JWKS_URL) + Number(!!values.AUTH_SECRET) !== 1) {
    yield 'AUTH_JWKS_URL, AUTH_SECRET: AUTH=jwt needs exactly one of them';
  }
}
