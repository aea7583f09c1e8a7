import { execFileSync } from 'node:child_process';

/** Where a program of this machine is; undefined where it is not installed. */
export function programPath(name: string): string | undefined {
  try {
    return execFileSync('which', [name], { encoding: 'utf8' }).trim();
  } catch {
    return undefined;
  }
}
