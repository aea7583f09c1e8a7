import type { ByteBudget, ByteShare } from '../byte-budget.js';
import { ImportPace, type PaceOptions } from './pace.js';
import type { Piece, RowValues } from './piece.js';

/** What is gathered before it is sent, whichever is reached first. */
const PIECE_BYTES = 256 * 1024;
const PIECE_ROWS = 10_000;
/**
 * The rows of an import in pieces: each is gathered at the pace of whoever brings them, so that sending it takes the server's time
 * alone. What is gathered counts in the budget until the next but one is asked for: one may be sent while another is gathered.
 */
export class ImportPieces {
  private readonly pace: ImportPace | undefined;
  private share: ByteShare | undefined;
  /** Of the piece before, which is sent meanwhile. */
  private shareBefore: ByteShare | undefined;
  private isReading = false;
  private hasEnded = false;
  /** Ends the wait for the piece that is gathered. */
  private fail: (error: unknown) => void = () => undefined;

  /**
   * @param rows a few at a time; they give way by themselves, as reading and checking them is the work
   * @param pace left out: the source takes whatever time it takes
   */
  constructor(
    private readonly rows: AsyncIterator<RowValues>,
    private readonly budget: ByteBudget,
    pace?: Omit<PaceOptions, 'onStalled'>,
  ) {
    this.pace = pace && new ImportPace({ ...pace, onStalled: (error) => this.fail(error) });
  }

  /**
   * Brings the next rows into a piece; none at the end.
   *
   * @throws ImportStalledError, MemoryBudgetExhaustedError, what the source throws
   */
  fill(piece: Piece): Promise<void> {
    this.shareBefore?.close();
    this.shareBefore = this.share;
    this.share = this.budget.open();
    // A source can't be told to stop waiting, so that its piece is left to itself then.
    return new Promise((resolve, reject) => {
      this.fail = reject;
      this.gather(piece, this.share!).then(resolve, reject);
    });
  }

  /** The source is told that nobody reads on, and what was gathered is given back. */
  async end(): Promise<void> {
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.pace?.end();
    this.shareBefore?.close();
    this.share?.close();
    const ended = this.rows.return?.();
    // Of a generator that is waited for, this comes behind what it waits for.
    if (this.isReading) ended?.catch(() => undefined);
    else await ended;
  }

  private async gather(piece: Piece, share: ByteShare): Promise<void> {
    this.pace?.begin();
    while (piece.bytes < PIECE_BYTES && piece.count < PIECE_ROWS) {
      const rows = await this.read();
      if (!rows || this.hasEnded) break;
      const before = piece.bytes;
      piece.add(rows);
      await share.grow(piece.bytes - before);
    }
  }

  private async read(): Promise<RowValues | undefined> {
    this.isReading = true;
    this.pace?.wait();
    try {
      const result = await this.rows.next();
      return result.done ? undefined : result.value;
    } finally {
      this.isReading = false;
      this.pace?.come();
    }
  }
}
