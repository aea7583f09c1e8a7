import path from 'node:path';
import { InitError } from './init-error.js';
import { Source } from './source.js';

/** The files of an application, wherever they are: on the disk, or in the tree of a schematic. Names are relative to its root. */
export interface ProjectFiles {
  /** Its directory, from where its compiler is found. */
  readonly root: string;
  read(name: string): string | undefined;
  /** The names of all files below a folder. */
  list(folder: string): string[];
}

/** What becomes of a file; before: undefined where there was none. */
export interface Change {
  name: string;
  before: string | undefined;
  after: string;
}

/** The application that is changed: its files are read once, and changed in memory. */
export class Project {
  /** What is left to be written by hand, in sentences. */
  readonly byHand: string[] = [];
  readonly sourceRoot: string;
  private readonly sources = new Map<string, Source>();
  private readonly texts = new Map<string, string>();

  /** @param sourceRoot as nest-cli.json says it, where it is not given */
  constructor(
    private readonly files: ProjectFiles,
    sourceRoot?: string,
  ) {
    const said = this.source('nest-cli.json')?.json?.get('sourceRoot')?.string;
    this.sourceRoot = (sourceRoot ?? said ?? 'src').replace(/^\.\//, '').replace(/\/+$/, '');
  }

  /** @throws InitError it has syntax errors */
  source(name: string): Source | undefined {
    let source = this.sources.get(name);
    if (source) return source;
    const text = this.files.read(name);
    if (text === undefined) return undefined;
    source = new Source(this.files.root, name, text);
    this.sources.set(name, source);
    return source;
  }

  /** The text of a file that is no source. */
  text(name: string): string | undefined {
    return this.texts.get(name) ?? this.files.read(name);
  }

  /** The file is to say this. */
  write(name: string, text: string): void {
    this.texts.set(name, text);
  }

  /** The sources of the application that name something; tests are not of it. */
  sourcesNaming(word: string): Source[] {
    return this.files
      .list(this.sourceRoot)
      .filter((name) => /\.ts$/.test(name) && !/(\.d|[.-](spec|test))\.ts$/.test(name))
      .filter((name) => this.files.read(name)?.includes(word))
      .flatMap((name) => this.source(name) ?? []);
  }

  /** The source that an import of another one leads to. */
  importedSource(by: Source, local: string): Source | undefined {
    const from = by.imported(local)?.from;
    if (!from?.startsWith('.')) return undefined;
    const name = path.posix.join(path.posix.dirname(by.name), from.replace(/\.[cm]?js$/, ''));
    return this.source(`${name}.ts`) ?? this.source(`${name}/index.ts`);
  }

  /** Changes one source; where something of it is not understood all of that is left to be done by hand. */
  attempt(source: Source, step: () => void): void {
    try {
      source.atomically(step);
    } catch (error) {
      if (!(error instanceof InitError)) throw error;
      this.byHand.push(error.message);
    }
  }

  /** What is to be changed; nothing where all of it is as it should be. */
  get changes(): Change[] {
    const after = [...[...this.sources].map(([name, { text }]) => [name, text] as const), ...this.texts];
    return after
      .map(([name, text]) => ({ name, before: this.files.read(name), after: text }))
      .filter(({ before, after: text }) => before !== text)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }
}
