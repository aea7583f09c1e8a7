const EVERY_MS = 60_000;
/** Most subjects that are remembered; a bound, as outsiders choose their names. */
const SUBJECTS = 1000;

/** Tells of each subject once a minute, however often it is met, and how often it was met in between. */
export class ToldRarely {
  private readonly told = new Map<string, { at: number; more: number }>();

  /**
   * @param tell called where it is time to; `more` is how often it was left untold since the last time
   * @returns whether it was told
   */
  of(subject: string, tell: (more: number) => void): boolean {
    const now = performance.now();
    const known = this.told.get(subject);
    if (known && now - known.at < EVERY_MS) {
      known.more++;
      return false;
    }
    this.told.delete(subject);
    const [oldest] = this.told.keys();
    if (this.told.size >= SUBJECTS) this.told.delete(oldest!);
    this.told.set(subject, { at: now, more: 0 });
    tell(known?.more ?? 0);
    return true;
  }
}

/** The field of a line that says how many others it stands for. */
export const standingFor = (more: number): { more?: number } => (more > 0 ? { more } : {});
