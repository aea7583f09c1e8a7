import { createRequire } from 'node:module';
import path from 'node:path';
import type ts from 'typescript';
import { InitError } from './init-error.js';

/**
 * The compiler of the application, so that its syntax is the one that is understood; where it has none that can be asked, as from
 * TypeScript 7.0 on, the one that Nest's command line brings along.
 *
 * @throws InitError there is none
 */
export function compilerOf(root: string): unknown {
  const fromApplication = createRequire(path.join(root, 'package.json'));
  const compiler = load(fromApplication) ?? load(requireOf(fromApplication, '@nestjs/cli/package.json'));
  if (compiler) return compiler;
  throw new InitError(
    'TypeScript is needed to read the application, with an API that can be asked, which 7.0 lacks: install its packages, or typescript@6 as a development dependency, and run this again.',
  );
}

function load(from: NodeJS.Require | undefined): typeof ts | undefined {
  try {
    const compiler = from?.('typescript') as Partial<typeof ts> | undefined;
    return compiler?.createSourceFile && (compiler as typeof ts);
  } catch {
    // There is none, or none that this Node can load: the next is asked.
    return undefined;
  }
}

/** What a module of the application's would find. */
function requireOf(from: NodeJS.Require, module: string): NodeJS.Require | undefined {
  try {
    return createRequire(from.resolve(module));
  } catch {
    return undefined;
  }
}
