import { AsyncLocalStorage } from 'node:async_hooks';

/** In which unit of work some code runs, and whether that is its own or one that it has joined. */
interface Place<Context> {
  context: Context;
  hasJoined: boolean;
}

/** One for the process: what is outside of the units of work of one DataSource is outside of all. */
const places = new AsyncLocalStorage<Place<unknown> | undefined>();

/**
 * Runs `work` as if no unit of work were around it: for what is to live longer than that one, or to have a connection of its own.
 * Who waits for `work` inside of a unit of work holds one connection while it takes another.
 */
export function outsideTransaction<T>(work: () => T): T {
  return places.getStore() ? places.run(undefined, work) : work();
}

/** Knows of running code which unit of work it runs in, through everything it calls and awaits. */
export class Places<Context> {
  get current(): Context | undefined {
    return this.place?.context;
  }

  /** @param hasJoined true: `work` is a part of the unit, which goes on behind it */
  run<T>(context: Context, hasJoined: boolean, work: () => T): T {
    return places.run({ context, hasJoined }, work);
  }

  /** True for code that is the unit's own work, rather than a part of it, or something else. */
  isOwnWork(context: Context): boolean {
    const { place } = this;
    return place?.context === context && !place.hasJoined;
  }

  private get place(): Place<Context> | undefined {
    return places.getStore() as Place<Context> | undefined;
  }
}
