/** What somebody was told of what they have asked for; `unknown` is also no answer. */
export type Outcome = 'done' | 'refused' | 'unknown';

/** Something that was asked for, and what was told of it. */
export interface Asked {
  by: 'HTTP' | 'message' | 'request by message';
  /** As the database writes it down, `created <name>`; each name is used once. Undefined where nothing is changed. */
  change?: string;
  outcome: Outcome;
  /** What was told, where it is not done. */
  told?: string;
}

/** All that was asked for while one fault lasted. */
export class Ledger {
  readonly asked: Asked[] = [];
  /** Of answers that contradict what was told before. */
  readonly violations: string[] = [];

  add(asked: Asked): void {
    this.asked.push(asked);
  }

  count(by: Asked['by'], outcome?: Outcome): number {
    return this.asked.filter((each) => each.by === by && (!outcome || each.outcome === outcome)).length;
  }

  /** What was told where something was not done, and how often. */
  failures(by: Asked['by']): string[] {
    const failures = new Map<string, number>();
    for (const { by: each, outcome, told = '' } of this.asked) {
      if (each !== by || outcome === 'done') continue;
      failures.set(told, (failures.get(told) ?? 0) + 1);
    }
    return [...failures].map(([told, times]) => `${times} × ${told}`);
  }
}
