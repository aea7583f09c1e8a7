import type { DataSource } from 'typeorm';

type ResultCache = NonNullable<DataSource['queryResultCache']>;

/**
 * Keeps TypeORM's cache of results out of units of work: what they read there may be older than their snapshot, and what they
 * stored would be shown to everybody, though they may be rolled back. What they remove from it is removed.
 */
export function cacheBeside(dataSource: DataSource, isInside: () => boolean): void {
  let cache = dataSource.queryResultCache;
  Object.defineProperty(dataSource, 'queryResultCache', {
    configurable: true,
    enumerable: true,
    get: () => (cache && isInside() ? without(cache) : cache),
    set: (other: typeof cache) => (cache = other),
  });
}

const without = (cache: ResultCache): ResultCache =>
  Object.assign(Object.create(cache) as ResultCache, {
    getFromCache: () => Promise.resolve(undefined),
    storeInCache: () => Promise.resolve(),
  });
