import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { SERVICE_PACKAGES } from '../../src/app/commands/start.js';

const toUrl = (module: string) => `data:text/javascript,${encodeURIComponent(module)}`;

it('nestjs-people start says what to install where the service’s own packages are missing', async () => {
  const hook = `export const resolve = (name, context, next) =>
    name === 'fastify' || name === 'pino' ? Promise.reject(Object.assign(new Error("Cannot find package '" + name + "' imported from here"), { code: 'ERR_MODULE_NOT_FOUND' })) : next(name, context);`;
  const register = `import { register } from 'node:module'; register(${JSON.stringify(toUrl(hook))});`;
  const started = promisify(execFile)(process.execPath, [
    '--import',
    toUrl(register),
    'dist/src/cli.js',
    'start',
  ]);
  await expect(started).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      /^The service needs \w+, which a host application does without: npm install /,
    ),
  });
  await expect(started).rejects.toThrow(`npm install ${SERVICE_PACKAGES.join(' ')}`);
});
