import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { unsupportedIn } from '../../src/database/versions/supported.js';

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as {
  version: string;
  peerDependencies: Record<string, string>;
};
const ranges = manifest.peerDependencies;

describe('what is installed', () => {
  it.each([
    ['the oldest of everything', (range: string) => range.match(/\d[\w.-]*/)![0]],
    ['the newest lines', (range: string) => range.split('^').at(-1)!],
    ['a nightly of TypeORM', () => undefined, { typeorm: '1.1.1-nightly.20260919' }],
    ['what can not be told', () => undefined],
    [
      'an optional peer of another version, which the host has for itself',
      () => undefined,
      { 'prom-client': '14.2.0' },
    ],
  ])('may be %s', (_, versionIn, found: Record<string, string> = {}) => {
    const versionOf = (name: string) => found[name] ?? versionIn(ranges[name]!);
    expect(unsupportedIn(manifest, versionOf)).toBeUndefined();
  });

  it.each([
    ['typeorm', '0.3.19'],
    ['@nestjs/core', '10.4.15'],
    ['@nestjs/core', '13.0.0'],
    ['pg', '8.20.0'],
    ['class-validator', '0.13.2'],
  ])('is refused with what to install: %s %s', (name, version) => {
    const told = unsupportedIn(manifest, (asked) => (asked === name ? version : undefined));
    expect(told).toBe(
      `nestjs-people was not tested with ${name} ${version}: npm install "${name}@${ranges[name]}" (docs/compatibility.md).`,
    );
  });

  it('is refused together with the Node that runs it', () => {
    expect(unsupportedIn(manifest, () => undefined, '18.20.0')).toBe(
      'nestjs-people was not tested with Node 18.20.0: run Node >=20.19 (docs/compatibility.md).',
    );
    const both = unsupportedIn(manifest, (name) => (name === 'pg' ? '7.18.2' : undefined), '18.20.0');
    expect(both).toContain('Node 18.20.0, pg 7.18.2: run Node >=20.19, and npm install "pg@');
  });
});

describe('an application with a version outside of a range', () => {
  let directory: string;

  /** A host beside this checkout, with a version of its own of one package: all others are found further up. */
  beforeAll(() => {
    mkdirSync('.data', { recursive: true });
    directory = mkdtempSync(path.resolve('.data', 'versions-'));
    const put = (name: string) => path.join(directory, 'node_modules', name);
    for (const name of ['nestjs-people', 'class-transformer']) mkdirSync(put(name), { recursive: true });
    for (const file of ['package.json', 'dist'])
      cpSync(file, path.join(put('nestjs-people'), file), { recursive: true });
    writeFileSync(path.join(directory, 'package.json'), '{"name":"host"}');
    writeFileSync(path.join(put('class-transformer'), 'package.json'), '{"version":"0.4.1"}');
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it('does not start', async () => {
    const script = `
      import 'reflect-metadata';
      import { NestFactory } from '@nestjs/core';
      import { TypeOrmModule } from '@nestjs/typeorm';
      import { TransactionsModule } from 'nestjs-people/transactions';
      const imports = [TypeOrmModule.forRoot({ type: 'postgres', manualInitialization: true }), TransactionsModule.forRoot()];
      const host = { module: class {}, imports };
      await NestFactory.createApplicationContext(host, { logger: false, abortOnError: false });`;
    const started = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      cwd: directory,
    });
    await expect(started).rejects.toThrow(
      'nestjs-people was not tested with class-transformer 0.4.1: npm install "class-transformer@^0.5.1" (docs/compatibility.md).',
    );
  });
});
