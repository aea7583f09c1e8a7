import type { RecordBatch, RecordLimits } from './record.js';

/**
 * A part of each partition of a topic by time, in ms since 1970: from the first record whose timestamp is not before `from`, up to
 * the first one whose timestamp is not before `to`, or that the group has not committed.
 */
export interface RecordWindow {
  /** All partitions of it. */
  topic: string;
  /** Ms since 1970, included. */
  from: number;
  /** Ms since 1970, not included. */
  to: number;
}

/** How a window is read. */
export interface WindowSettings {
  /** What it has not committed is its own to read: what came later must not be handled before it. */
  groupId: string;
  /** What a record of it may have that is decoded. */
  limits: RecordLimits;
}

/** Reads a window, as it was when it was looked for; once. */
export interface WindowReader {
  /** Offsets that it has in all. There may be fewer records. */
  readonly records: number;
  /**
   * Its committed records, a partition after the other. What is given is to be done with before more is asked for, so that no more
   * than one fetch is in memory.
   *
   * @throws Error the brokers can't be reached any more, or a batch can't be read
   */
  read(signal: AbortSignal): AsyncIterable<RecordBatch & { offsets: number }>;
  /** Gives up what it holds. */
  close(): void;
}
