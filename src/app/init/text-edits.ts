/** One change of a text. */
export interface Edit {
  from: number;
  to: number;
  text: string;
}

/** Changes of a text by places of the text as it was: what none of them touches stays as it is. */
export class TextEdits {
  private edits: Edit[] = [];

  constructor(readonly original: string) {}

  get count(): number {
    return this.edits.length;
  }

  insert(at: number, text: string): void {
    this.replace(at, at, text);
  }

  replace(from: number, to: number, text: string): void {
    this.edits.push({ from, to, text });
  }

  /** Takes back those that came after the first `count`. */
  takeBack(count: number): void {
    this.edits = this.edits.slice(0, count);
  }

  /** The text with all changes, and more; what is inserted at one place stands in the order in which it came. */
  textWith(more: readonly Edit[] = []): string {
    const parts: string[] = [];
    let at = 0;
    for (const { from, to, text } of [...this.edits, ...more].sort((a, b) => a.from - b.from)) {
      parts.push(this.original.slice(at, from), text);
      at = to;
    }
    return parts.join('') + this.original.slice(at);
  }
}
