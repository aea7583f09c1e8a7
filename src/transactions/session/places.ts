import { AsyncLocalStorage } from 'node:async_hooks';

/** In which unit of work some code runs, and whether that is its own or one that it has joined. */
interface Place<Context> {
  context: Context;
  hasJoined: boolean;
}

/** Knows of running code which unit of work it runs in, through everything it calls and awaits. */
export class Places<Context> {
  private readonly places = new AsyncLocalStorage<Place<Context>>();

  get current(): Context | undefined {
    return this.places.getStore()?.context;
  }

  /** @param hasJoined true: `work` is a part of the unit, which goes on behind it */
  run<T>(context: Context, hasJoined: boolean, work: () => T): T {
    return this.places.run({ context, hasJoined }, work);
  }

  /** True for code that is the unit's own work, rather than a part of it, or something else. */
  isOwnWork(context: Context): boolean {
    const place = this.places.getStore();
    return place?.context === context && !place.hasJoined;
  }
}
