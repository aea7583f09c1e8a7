import type { RulesFor } from '../transactions/setup/known-options.js';
import type { TransactionRunnerSettings } from '../transactions/transaction-options.js';
import type { TransactionRunner } from '../transactions/transaction-runner.js';

/** What `MessagingModule` takes beside the defaults of every unit of work. */
export interface MessagingSettings {
  /**
   * How long it is remembered that a request with an `Idempotency-Key` or a message was handled, and a dead letter settled, in
   * ms. Default 7 days. Messages are remembered longer while they are not below the committed offset.
   */
  inboxRetentionMs?: number;
  /** How often what is older is looked for, in ms. Default 60,000. */
  pruneEveryMs?: number;
}

/** What they may be. */
export const messagingRules: RulesFor<MessagingSettings> = {
  inboxRetentionMs: 'a whole number',
  pruneEveryMs: 'a whole number',
};

export const MESSAGING_SETTINGS = Symbol.for('nestjs-people:MESSAGING_SETTINGS');

const SEVEN_DAYS_MS = 7 * 24 * 60 * 60 * 1000;

/** How long is remembered what was handled, in ms. @throws Error it is no time */
export function retentionOf({ inboxRetentionMs = SEVEN_DAYS_MS }: MessagingSettings): number {
  if (!Number.isSafeInteger(inboxRetentionMs) || inboxRetentionMs < 0)
    throw new Error(
      `inboxRetentionMs: ${inboxRetentionMs} is no number of milliseconds; give a whole one, or leave it out.`,
    );
  return inboxRetentionMs;
}

/** They come from the factory that gives the defaults of the units of work. */
export const messagingSettingsOf = ({ settings }: TransactionRunner): MessagingSettings =>
  settings as TransactionRunnerSettings & MessagingSettings;
