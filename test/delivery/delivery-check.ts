import { withClosers } from '../support/closers.js';
import { compare } from './comparison.js';
import { everyFault, type Fault } from './faults.js';
import { type Flow, flowOf, SCALING } from './flow.js';
import { Sender } from './sender.js';
import type { ServicePlace } from './service-place.js';
import { settle } from './settling.js';
import { type CheckOptions, type Counts, openStage, type Stage } from './stage.js';
import { Standstill } from './standstill.js';
import { REPLIES } from './topics.js';

/** The session timeout, the way of a first message to its commit, and how often is looked. */
const STANDSTILL_MS = 10_000 + 2_000;

/**
 * Sends people's lives to instances of the service, while these, the broker and the database are killed at every step of a
 * message, and while instances come and go. Then everything that is there is compared with what was sent.
 */
export const checkDelivery = (options: CheckOptions): Promise<Counts> =>
  withClosers(async (closers) => {
    const stage = await openStage(options, closers);
    const end = Date.now() + options.seconds * 1000;
    do await playRound(stage);
    while (Date.now() < end && !options.signal?.aborted && stage.counts.violations.length === 0);
    await Promise.all(stage.places.map((place) => place.stop()));
    stage.counts.starts = stage.places.reduce((sum, { starts }) => sum + starts, 0);
    stage.counts.sentAgain = stage.topics.sentAgain;
    return stage.counts;
  });

async function playRound(stage: Stage): Promise<void> {
  const { options, counts, database, topics, places, random } = stage;
  const flow = flowOf(options.messages, random, REPLIES);
  const sender = new Sender(topics, flow.messages);
  await scaleTo(places, options.instances);
  await underFaults(stage, sender);
  // What the faults have left behind is none of the scaling's: a backlog, and the watch for what kills the process, which handles
  // messages one by one for as long as crashes are remembered. An instance looks for them when the group is shared out anew.
  await topics.untilCaughtUp();
  await database.query(`DELETE FROM message_instance WHERE seen_at < now() - interval '6 s'`);
  await scaleTo(places, 1);
  await whileScaling(stage, sender);
  await sender.sendRest();
  const left = await settle(flow, database, topics, REPLIES);
  counts.askedAgain += left.askedAgain;
  const { eventsSentAgain, violations } = await compare(flow, stage.handled, database, topics);
  counts.violations.push(...left.violations, ...violations);
  counts.eventsSentAgain += eventsSentAgain;
  stage.handled += flow.ids.size;
  count(counts, flow);
}

function count(counts: Counts, flow: Flow): void {
  counts.rounds++;
  counts.messages += flow.messages.length;
  counts.duplicates += flow.duplicates;
  counts.poisonous += flow.poison.size;
  counts.requests += flow.requests.size;
  counts.hazards += flow.hazards;
  counts.nastyHeaders += flow.nastyHeaders;
}

/** The table, a few of its rows at a time; each has its share of the messages. */
async function underFaults(stage: Stage, sender: Sender): Promise<void> {
  const { options, counts, faults, topics, random } = stage;
  const { signal, together, leaveOut = [] } = options;
  const table = everyFault(random).filter(({ name }) => !leaveOut.includes(name));
  const volleys: Fault[][] = [];
  for (let from = 0; from < table.length; from += together) volleys.push(table.slice(from, from + together));
  const standstill = new Standstill(topics);
  const callOff = () => faults.callOff();
  signal?.addEventListener('abort', callOff);
  const forScaling = sender.left * SCALING;
  for (const [index, volley] of volleys.entries()) {
    if (signal?.aborted) break;
    const recovered = Promise.all(volley.map((fault) => faults.arm(fault)))
      // Some meet a group that has not come to itself.
      .then(() => (random() < 0.7 ? topics.untilCaughtUp() : undefined));
    // One share more, for those that wait longer for their step.
    const share = (sender.left - forScaling) / (volleys.length - index + 1);
    await sender.sendDuring(recovered, share, forScaling);
    await Promise.race([recovered, topics.untilCaughtUp()]);
    faults.callOff();
    await recovered;
  }
  signal?.removeEventListener('abort', callOff);
  for (const { name } of table)
    if (!counts.faults[name] && !signal?.aborted) counts.violations.push(`it never came to: ${name}`);
  const { longestStandstillMs } = counts;
  longestStandstillMs.underFaults = Math.max(longestStandstillMs.underFaults, await standstill.stop());
}

/** One, two, three, one instances under load. */
async function whileScaling({ options, counts, topics, places }: Stage, sender: Sender): Promise<void> {
  if (options.signal?.aborted) return;
  options.onProgress?.('one, two, three, one instances');
  const standstill = new Standstill(topics);
  const scaling = [1, 2, 3, 1].reduce(
    (before, instances) => before.then(() => scaleTo(places, instances)).then(() => topics.untilCaughtUp()),
    Promise.resolve(),
  );
  await sender.sendDuring(scaling, sender.left);
  await scaling;
  const longest = await standstill.stop();
  const { longestStandstillMs, violations } = counts;
  longestStandstillMs.whileScaling = Math.max(longestStandstillMs.whileScaling, longest);
  if (longest > STANDSTILL_MS) violations.push(`a partition stood still for ${longest} ms`);
}

async function scaleTo(places: ServicePlace[], instances: number): Promise<void> {
  await Promise.all(
    places.map((place, index) => {
      if (index >= instances) return place.stop();
      if (!place.isUp) place.start();
      return place.untilUp();
    }),
  );
}
