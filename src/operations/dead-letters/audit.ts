import type { DataSource } from 'typeorm';
import { tableIn } from '../../database/table-name.js';
import { plainText } from '../../errors/plain-text.js';
import type { Statement } from '../../transactions/transaction-context.js';

/** Who does something about messages, and why. */
export interface Act {
  actor: string;
  reason: string | undefined;
}

/** What was done. */
export type Action = 'replay' | 'correct' | 'discard' | 'release-key' | 'replay-window' | 'cancel-window';

/** A row of `message_audit`. */
export interface AuditEntry {
  seq: string;
  at: Date;
  actor: string;
  action: Action;
  reason: string | null;
  /** The `seq` of the dead letter. */
  deadLetter: string | null;
  topic: string | null;
  details: Record<string, unknown> | null;
}

/** What an act was about. */
export interface AuditSubject {
  deadLetter?: string;
  topic?: string;
  details?: Record<string, unknown>;
}

const REASON_CHARACTERS = 1000;

/** Rows of `message_audit`: written in the transaction of the act, never changed, never removed by us. */
export function auditStatements(dataSource: DataSource) {
  const table = tableIn(dataSource, 'message_audit');
  return {
    add: (
      { actor, reason }: Act,
      action: Action,
      { deadLetter, topic, details }: AuditSubject,
    ): Statement => ({
      text: `INSERT INTO ${table} (actor, action, reason, dead_letter, topic, details) VALUES ($1, $2, $3, $4, $5, $6)`,
      values: [
        ...[plainText(actor), action, reason === undefined ? null : plainText(reason, REASON_CHARACTERS)],
        ...[deadLetter ?? null, topic ?? null, details === undefined ? null : JSON.stringify(details)],
      ],
    }),
    /** Newest first. @param before the `seq` of the last one of the page before */
    list: (atMost: number, before: string | undefined): Statement => ({
      text: `SELECT seq::text, at, actor, action, reason, dead_letter::text AS "deadLetter", topic, details FROM ${table}
        WHERE $1::bigint IS NULL OR seq < $1 ORDER BY seq DESC LIMIT ${Math.trunc(atMost)}`,
      values: [before ?? null],
    }),
  };
}
