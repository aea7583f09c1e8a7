/** What the service needs beside the package, and a host application does not: the dependencies of src/app/package.json. */
export const SERVICE_PACKAGES = [
  '@fastify/static',
  '@nestjs/platform-fastify',
  '@nestjs/terminus',
  'fastify',
  'helmet',
  'jose',
  'kafkajs',
  'pino',
  'prom-client',
];

/**
 * Says what to install where the service can't be loaded for want of it.
 *
 * @throws Error with that sentence, or what it was given
 */
export function explainMissing(cause: Error & { code?: string }): never {
  const missing = /^Cannot find package '([^']+)'/.exec(cause.message)?.[1];
  if (cause.code !== 'ERR_MODULE_NOT_FOUND' || !missing || !SERVICE_PACKAGES.includes(missing)) throw cause;
  throw new Error(
    `The service needs ${missing}, which a host application does without: npm install ${SERVICE_PACKAGES.join(' ')}`,
    { cause },
  );
}
