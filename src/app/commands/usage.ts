import { parseArgs } from 'node:util';
import type { DeadLetterFilter } from '../../messaging/dead-letters.js';

export const USAGE = `usage: nestjs-people dead-letters list|show|replay|discard [--topic T] [--key K] [--id ID] [--error CODE]
         [--limit N] [--all] [--reason WHY] [--help]
       nestjs-people start
       nestjs-people init [--yes] [--dry-run] [--skip-install] [--source-root FOLDER]

  list     prints one JSON object per line: those that are neither replayed nor discarded, oldest first; --limit N at most
  show     prints all that is known of them as JSON: payload, headers, what they failed with and what caused that, with stacks,
           attempts, trace id; needs --id (message id, or seq of the list), or --limit N
  replay   has them handled again, by way of the topic they came from; a running service has to relay them
  discard  puts them away for good
  start    runs the service, with the settings of the environment

Messages whose state is "parked" wait behind a dead letter of their key (KAFKA_QUARANTINE_KEYS). Replaying one of the key's, or
discarding its last dead letter, releases the key: what is parked is handled, in order. With the code KEY_WAITS they wait for
the first of them, which is tried again by itself: replay tries it at once, discarding it lets the others go on.

replay and discard need at least one of --topic, --key, --id (message id, or seq of the list), --error, or --all. Who ran them
is kept in message_audit, with --reason.
The database is that of DATABASE_URL or DB_HOSTNAME; without them, the one that npm start runs in this directory.

init adds people to the Nest application of this directory: packages, module, migrations and main.ts. It shows what it changes, asks
(--yes: does not), and has the packages installed (--skip-install: does not); --dry-run writes nothing. The second time there is
nothing to do. What it does not understand it leaves as it is, and says what to write.

exit codes: 0 done; 1 failed, the reason is on stderr; 2 the command line can't be understood; 3 there is none with this --id, or of
init, something is left to be written by hand`;

/** What a script can tell from how the command ends. */
export const EXIT = { done: 0, failed: 1, usage: 2, notFound: 3, byHand: 3 } as const;

/** A command line that can't be understood. */
export class UsageError extends Error {}

/** What is to be done. */
export interface DeadLettersCommand {
  action: 'list' | 'show' | 'replay' | 'discard';
  filter: DeadLetterFilter;
  /** Infinity: all. */
  limit: number;
  reason: string | undefined;
}

const ACTIONS = ['list', 'show', 'replay', 'discard'] as const;
const text = { type: 'string' } as const;
const OPTIONS = {
  topic: text,
  key: text,
  id: text,
  error: text,
  limit: text,
  reason: text,
  all: { type: 'boolean' },
} as const;

/** @throws UsageError what to write instead */
export function parseCommand([given = '', ...rest]: string[]): DeadLettersCommand {
  const action = ACTIONS.find((one) => one === given);
  if (!action) throw new UsageError(`dead-letters: expected list, show, replay or discard, not "${given}"`);
  const { all, limit, reason, ...filter } = valuesOf(rest);
  const isAct = action === 'replay' || action === 'discard';
  if (isAct && limit !== undefined)
    throw new UsageError(`dead-letters ${action}: --limit is for list and show`);
  if (isAct && !all && Object.keys(filter).length === 0)
    throw new UsageError(`dead-letters ${action}: say which, or --all`);
  if (!isAct && reason !== undefined)
    throw new UsageError(`dead-letters ${action}: --reason is for replay and discard`);
  if (action === 'show' && filter.id === undefined && limit === undefined)
    throw new UsageError('dead-letters show: say which with --id, or how many with --limit');
  return { action, filter, limit: limitOf(limit), reason };
}

function valuesOf(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return Infinity;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new UsageError(`--limit: expected a whole number from 1 on, not "${text}"`);
  return Number(text);
}
