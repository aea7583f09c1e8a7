import { packageManagerOf } from './package-manager.js';
import { planInit } from './plan.js';
import { unifiedDiff } from './unified-diff.js';

/** Of the tree that a schematic changes: what is used here. */
interface Tree {
  read(file: string): Buffer | null;
  exists(file: string): boolean;
  create(file: string, text: string): void;
  overwrite(file: string, text: string): void;
  getDir(folder: string): { visit(visitor: (file: string) => void): void };
}

/** Of what a schematic is run with: what is used here. */
interface SchematicContext {
  logger: { info(message: string): void; warn(message: string): void };
  addTask(task: { toConfiguration(): { name: string; options: object } }): unknown;
}

/** `nest add nestjs-people`: the plan of `nestjs-people init` on the tree of a schematic, which writes it, or not (`--dry-run`). */
export function nestAdd({ sourceRoot, skipInstall }: { sourceRoot?: string; skipInstall?: boolean }) {
  return (tree: Tree, context: SchematicContext): void => {
    const { logger } = context;
    const root = process.cwd();
    const plan = planInit(
      {
        root,
        read: (name) => tree.read(name)?.toString(),
        list: (folder) => {
          const names: string[] = [];
          tree.getDir(folder).visit((file) => names.push(file.replace(/^\//, '')));
          return names.filter((name) => !name.includes('node_modules/')).sort();
        },
      },
      sourceRoot,
    );
    for (const { name, before, after } of plan.changes) {
      logger.info(unifiedDiff(name, before, after));
      if (before === undefined) tree.create(name, after);
      else tree.overwrite(name, after);
    }
    for (const sentence of plan.byHand) logger.warn(`Left to you: ${sentence}`);
    if (plan.changes.length === 0 && plan.byHand.length === 0)
      logger.info('Everything is there: nothing to do.');
    if (!plan.installs || skipInstall) return;
    const options = { command: 'install', quiet: false, packageManager: packageManagerOf(root) };
    context.addTask({ toConfiguration: () => ({ name: 'node-package', options }) });
  };
}
