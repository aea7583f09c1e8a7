import type { StuckPartition } from '../kafka-driver.js';

/** What is not read on, in a sentence. */
export function standstillOf([first, ...others]: readonly StuckPartition[]): string | undefined {
  if (!first) return undefined;
  const { topic, partition, offset, reason } = first;
  const where = [topic, ...(partition < 0 ? [] : [`partition ${partition}`]), ...(offset === undefined ? [] : [`offset ${offset}`])]; // prettier-ignore
  const more = others.length === 0 ? '' : ` (and ${others.length} more)`;
  return `${where.join(', ')}: nothing more is read: ${reason.message}${more}`;
}
