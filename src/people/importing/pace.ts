import { ApplicationError, unchanged } from '../../errors/application-error.js';

/** How long a source may bring nothing where nothing else is said, in ms. */
export const DEFAULT_IDLE_MS = 10_000;
/** How long one piece may take while others want what the import holds, where nothing else is said, in ms. */
export const DEFAULT_PIECE_MS = 60_000;
/** A person that takes longer than the idle time still comes if so many bytes a second do. */
const LEAST_BYTES_PER_SECOND = 5;
const LOOK_EVERY_MS = 1000;

/** Who sends the people to import pauses for too long. HTTP 408. */
export class ImportStalledError extends ApplicationError {
  /** @param what what did not come in time */
  constructor(what: string) {
    super(unchanged(what, 'send the people again, without such pauses'), {
      type: 'request-timeout',
      status: 408,
      retryable: true,
    });
  }
}

/** What can be known of where the people to import come from. */
export interface ImportSource {
  /** Bytes that have come so far. */
  readonly received: number;
  /** True while it is us who let it wait. */
  readonly isHeld: boolean;
  /** Called for each person that was read. */
  personRead(): void;
}

/** What an `ImportPace` watches, and for whom. */
export interface PaceOptions {
  /** How long nothing may come, in ms. */
  idleMs: number;
  /** How long a piece may take while somebody wants what the import holds, in ms. */
  pieceMs: () => number;
  /** True while somebody does. */
  isWanted: () => boolean;
  source: ImportSource | undefined;
  /** Called when it is too slow. */
  onStalled: (error: ImportStalledError) => void;
}

/** Watches how fast a source brings what is waited for. The time in which nobody waits for it does not count. */
export class ImportPace {
  /** Since when the next person is waited for; undefined while nobody does. */
  private since: number | undefined;
  private waits = 0;
  /** How long the piece was waited for, but for the wait that is under way. */
  private waitedMs = 0;
  /** Since when it is looked whether anything comes, and what had come until then. */
  private window = { since: 0, received: 0 };
  private readonly timer: NodeJS.Timeout;

  constructor(private readonly options: PaceOptions) {
    const everyMs = Math.min(LOOK_EVERY_MS, options.idleMs / 2);
    this.timer = setInterval(() => this.look(), everyMs).unref();
  }

  /** A piece begins. */
  begin(): void {
    this.waitedMs = 0;
  }

  /** The next person is waited for. */
  wait(): void {
    this.waits++;
    this.since = performance.now();
    this.openWindow();
  }

  /** It has come. */
  come(): void {
    this.waitedMs += performance.now() - (this.since ?? 0);
    this.since = undefined;
    this.options.source?.personRead();
  }

  /** Nothing is waited for any more. */
  end(): void {
    clearInterval(this.timer);
    this.since = undefined;
  }

  private openWindow(): void {
    this.window = { since: performance.now(), received: this.options.source?.received ?? 0 };
  }

  private look(): void {
    const { waits } = this;
    if (!this.complaint()) return;
    // While the event loop was busy with others, something may have come that nobody has read yet.
    setImmediate(() => {
      const complaint = this.waits === waits ? this.complaint() : undefined;
      if (complaint) this.options.onStalled(new ImportStalledError(complaint));
    });
  }

  /** What is wrong with the wait that is under way; undefined if nothing is. */
  private complaint(): string | undefined {
    if (this.since === undefined) return undefined;
    const { idleMs, pieceMs, isWanted, source } = this.options;
    const now = performance.now();
    if (source?.isHeld) this.openWindow();
    else if (now - this.window.since >= idleMs) {
      const least = (LEAST_BYTES_PER_SECOND * idleMs) / 1000;
      if (!source || source.received - this.window.received < least)
        return `The import has brought nothing for ${idleMs} ms`;
      this.openWindow();
    }
    if (this.waitedMs + now - this.since >= pieceMs() && isWanted())
      return 'The import is slow, and others wait for what it takes';
    return undefined;
  }
}
