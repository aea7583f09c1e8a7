import type { INestApplication } from '@nestjs/common';
import { type BodyLimits, UnreadBodies } from './unread-bodies.js';

/** Options of `preparePeopleHost`: what bodies of people may be long, in bytes, in place of the options of `PeopleModule`. */
export type PeopleHostOptions = BodyLimits;

/**
 * Sets up what the routes of people need of an application on Express or Fastify, before it listens: their bodies (JSON, merge patches,
 * NDJSON) are left to be read behind the guards, as bytes and within the limits, whatever parsers the application has for its own routes.
 *
 * `PeopleModule` does so by itself, except in an application that was created with `rawBody: true`: there its parsers, with their limits,
 * read JSON before the guards, until this says otherwise.
 *
 * @returns the application
 * @throws Error it imports no `PeopleModule`, or an option is none, or no number of bytes
 */
export function preparePeopleHost<App extends INestApplication>(
  app: App,
  options: PeopleHostOptions = {},
): App {
  let bodies: UnreadBodies;
  try {
    bodies = app.get(UnreadBodies, { strict: false });
  } catch (cause) {
    throw new Error('preparePeopleHost: import PeopleModule in a module of the application.', { cause });
  }
  for (const [name, bytes] of Object.entries(options)) {
    if (!Object.hasOwn(bodies.limits, name))
      throw new Error(`preparePeopleHost: there is no option ${name}.`);
    if (!Number.isSafeInteger(bytes) || bytes < 1)
      throw new Error(`preparePeopleHost: ${name} must be a whole number of bytes, at least 1.`);
    bodies.limits[name as keyof PeopleHostOptions] = bytes;
  }
  bodies.leaveJson = true;
  return app;
}
