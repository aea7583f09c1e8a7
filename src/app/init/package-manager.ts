import { existsSync } from 'node:fs';
import path from 'node:path';

const BY_LOCK_FILE = {
  'pnpm-lock.yaml': 'pnpm',
  'yarn.lock': 'yarn',
  'bun.lock': 'bun',
  'package-lock.json': 'npm',
} as const;

/** Who installs the packages of an application; npm where nothing says so. */
export type PackageManager = (typeof BY_LOCK_FILE)[keyof typeof BY_LOCK_FILE];

/** The one whose lock file lies in the directory of the application, or, of a workspace, above it. */
export function packageManagerOf(directory: string): PackageManager {
  for (const [file, manager] of Object.entries(BY_LOCK_FILE))
    if (existsSync(path.join(directory, file))) return manager;
  const above = path.dirname(directory);
  return above === directory ? 'npm' : packageManagerOf(above);
}
