import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { ProjectFiles } from '../init/project.js';

/** The files of an application on the disk. */
export function applicationFiles(root: string): ProjectFiles {
  return {
    root,
    read: (name) => {
      const file = path.join(root, name);
      return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
    },
    list: (folder) => {
      const directory = path.join(root, folder);
      if (!existsSync(directory)) return [];
      return readdirSync(directory, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && !entry.parentPath.includes('node_modules'))
        .map(({ parentPath, name }) =>
          path.relative(root, path.join(parentPath, name)).replaceAll(path.sep, '/'),
        )
        .sort();
    },
  };
}
