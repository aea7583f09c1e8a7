import type { Channel } from 'node:diagnostics_channel';

/** What is done with the events of each of some channels. */
export type ChannelListeners<Channels> = {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- channels have no types; each listener knows its event
  [Name in keyof Channels]: (event: any) => void;
};

/** Listens to channels until the function that is returned is called. */
export function listenTo<Channels extends Readonly<Record<string, Channel>>>(
  channels: Channels,
  listeners: ChannelListeners<Channels>,
): () => void {
  const names = Object.keys(channels);
  for (const name of names) channels[name]!.subscribe(listeners[name]!);
  return () => {
    for (const name of names) channels[name]!.unsubscribe(listeners[name]!);
  };
}
