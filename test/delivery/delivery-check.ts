import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { ServiceHome } from '../support/service-process.js';
import { randomOf } from '../support/random.js';
import { compare } from './comparison.js';
import { ArmedFaults, everyFault, type Fault } from './faults.js';
import { type Flow, flowOf } from './flow.js';
import { Sender } from './sender.js';
import { ServicePlace } from './service-place.js';
import { type Database, type Killable, startBroker, startDatabase } from './servers.js';
import { settle } from './settling.js';
import { Standstill } from './standstill.js';
import { COMMANDS, Topics } from './topics.js';

export interface CheckOptions {
  seed: number;
  /** Of each round. */
  messages: number;
  /** Rounds are begun for this long; one in any case. */
  seconds: number;
  /** Instances of the service while faults happen. */
  instances: number;
  /** Faults that are waited for at once. */
  together: number;
  /** Names of faults. */
  leaveOut?: string[];
  /** Where the check's own PostgreSQL and Kafka live; removed by the caller. */
  directory: string;
  /** Ends the faults early; everything is compared all the same. */
  signal?: AbortSignal;
  /** Told now and then what happens. */
  onProgress?: (message: string) => void;
}

/** What happened; `violations` has to be empty. */
export interface Counts {
  rounds: number;
  messages: number;
  duplicates: number;
  poisonous: number;
  requests: number;
  /** Batches whose sending failed, and requests that were told to come again. */
  sentAgain: number;
  askedAgain: number;
  eventsSentAgain: number;
  faults: Record<string, number>;
  starts: number;
  longestStandstillMs: { underFaults: number; whileScaling: number };
  violations: string[];
}

const PARTITIONS = 8;
/** The session timeout, the way of a first message to its commit, and how often is looked. */
const STANDSTILL_MS = 10_000 + 2_000;
const REPLIES = 'check-replies';

interface Stage {
  options: CheckOptions;
  counts: Counts;
  database: Database;
  broker: Killable;
  topics: Topics;
  places: ServicePlace[];
  faults: ArmedFaults;
  random: () => number;
}

/**
 * Sends people's lives to instances of the service, while these, the broker and the database are killed at every step of a
 * message, and while instances come and go. Then everything that is there is compared with what was sent.
 */
export async function checkDelivery(options: CheckOptions): Promise<Counts> {
  const closers: (() => Promise<void>)[] = [];
  try {
    const stage = await openStage(options, closers);
    const end = Date.now() + options.seconds * 1000;
    do await playRound(stage);
    while (Date.now() < end && !options.signal?.aborted && stage.counts.violations.length === 0);
    await Promise.all(stage.places.map((place) => place.stop()));
    stage.counts.starts = stage.places.reduce((sum, { starts }) => sum + starts, 0);
    stage.counts.sentAgain = stage.topics.sentAgain;
    return stage.counts;
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

async function openStage(options: CheckOptions, closers: (() => Promise<void>)[]): Promise<Stage> {
  const { seed, instances, directory, onProgress } = options;
  const counts: Counts = {
    ...{ rounds: 0, messages: 0, duplicates: 0, poisonous: 0, requests: 0 },
    ...{ sentAgain: 0, askedAgain: 0, eventsSentAgain: 0 },
    faults: {},
    starts: 0,
    longestStandstillMs: { underFaults: 0, whileScaling: 0 },
    violations: [],
  };
  const opened = async <T extends { stop(): Promise<void> }>(opening: Promise<T>) => {
    const server = await opening;
    closers.push(() => server.stop());
    return server;
  };
  const [database, broker] = await Promise.all([
    opened(startDatabase(directory)),
    opened(startBroker(directory)),
  ]);
  const groupId = `check-${randomUUID()}`;
  const topics = await Topics.open(broker.port, groupId, { [COMMANDS]: PARTITIONS, [REPLIES]: 1 });
  closers.push(() => topics.close());
  const home = new ServiceHome();
  closers.push(() => home.remove());
  const places: ServicePlace[] = [];
  const faults = new ArmedFaults({ places, broker, database }, ({ name, step }) => {
    counts.faults[name] = (counts.faults[name] ?? 0) + 1;
    onProgress?.(`${name} (${step})`);
  });
  for (let n = 0; n < Math.max(3, instances); n++) {
    const place = await ServicePlace.open({
      ...{ home, database, broker, replyTopic: REPLIES },
      logFile: path.join(directory, `service-${n + 1}.log`),
      environment: {
        KAFKA_GROUP_ID: groupId,
        KAFKA_TOPIC_PARTITIONS: String(PARTITIONS),
        LOG_LEVEL: 'warn',
      },
      onStep: (step, at) => faults.onStep(step, at),
      onViolation: (violation) => counts.violations.push(violation),
    });
    places.push(place);
    closers.push(() => place.close());
  }
  return { options, counts, database, broker, topics, places, faults, random: randomOf(seed) };
}

async function playRound(stage: Stage): Promise<void> {
  const { options, counts, database, topics, places, random } = stage;
  const flow = flowOf(options.messages, random, REPLIES);
  const sender = new Sender(topics, flow.messages);
  await scaleTo(places, options.instances);
  await underFaults(stage, sender);
  await scaleTo(places, 1);
  await whileScaling(stage, sender);
  await sender.sendRest();
  const left = await settle(flow, database, topics, REPLIES);
  counts.askedAgain += left.askedAgain;
  const { eventsSentAgain, violations } = await compare(flow, database, topics);
  counts.violations.push(...left.violations, ...violations);
  counts.eventsSentAgain += eventsSentAgain;
  count(counts, flow);
}

function count(counts: Counts, flow: Flow): void {
  counts.rounds++;
  counts.messages += flow.messages.length;
  counts.duplicates += flow.duplicates;
  counts.poisonous += flow.poison.size;
  counts.requests += flow.requests.size;
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
  const forScaling = sender.left / (volleys.length + 1);
  for (const [index, volley] of volleys.entries()) {
    if (signal?.aborted) break;
    const recovered = Promise.all(volley.map((fault) => faults.arm(fault)))
      // Some meet a group that has not come to itself.
      .then(() => (random() < 0.7 ? topics.untilCaughtUp() : undefined));
    await sender.sendDuring(recovered, (sender.left - forScaling) / (volleys.length - index), forScaling);
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
