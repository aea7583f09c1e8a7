import type { HeldFigures } from '../telemetry/transport-figures.js';
import type { Lane } from './lane.js';

/** Counts what lanes hold, by topic. */
export function heldFigures(lanes: Iterable<Lane>): HeldFigures[] {
  const topics = new Map<string, HeldFigures>();
  for (const { queue, taken } of lanes) {
    // A lane is of one topic.
    const [head] = queue;
    if (!head) continue;
    const { topic } = head.record;
    let held = topics.get(topic);
    if (!held) topics.set(topic, (held = { topic, inFlight: 0, buffered: 0 }));
    held.inFlight += taken;
    held.buffered += queue.length - taken;
  }
  return [...topics.values()];
}
