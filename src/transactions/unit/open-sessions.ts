/** A connection that somebody uses. */
export interface Cuttable {
  /** Ends the connection; whatever waits on it fails. */
  cut: () => void;
}

/** The connections in use, for whoever stops the application. */
export class OpenSessions {
  /** As many as the pool has clients. A Set would hold on to those that were in it until a full garbage collection. */
  private readonly open: Cuttable[] = [];
  /** The deadline is over: what comes is cut at once. */
  isOver = false;
  /** How many were cut. */
  cut = 0;

  add(session: Cuttable): void {
    this.open.push(session);
    // Whoever waited for a connection, or tries again, does not go on either.
    if (this.isOver) this.cutOne(session);
  }

  get size(): number {
    return this.open.length;
  }

  delete(session: Cuttable): void {
    const place = this.open.indexOf(session);
    if (place >= 0) this.open.splice(place, 1);
  }

  /** Cuts those that are open, and from now on whatever comes. */
  cutAll(): void {
    if (this.isOver) return;
    this.isOver = true;
    for (const session of this.open) this.cutOne(session);
  }

  private cutOne(session: Cuttable): void {
    this.cut++;
    session.cut();
  }
}
