import { AsyncLocalStorage } from 'node:async_hooks';

/** Headers that say which trace, and which request, something is part of: by name, each of them valid and bounded. */
export type TraceHeaders = Readonly<Record<string, string>>;

/** Where running code is. */
interface Place {
  headers: TraceHeaders | undefined;
  /** The same as JSON, made when it is first asked for. */
  json?: string;
  /** Housekeeping that nobody has asked for: it makes no spans. */
  isUntraced?: boolean;
}

/** Where running code is, through everything it calls and awaits. */
export const places = new AsyncLocalStorage<Place>();
