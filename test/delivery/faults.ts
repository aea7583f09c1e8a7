import { setTimeout as sleep } from 'node:timers/promises';
import { CLUSTER_FAULTS, type ClusterFault, type ClusterFaults } from './cluster-faults.js';
import type { Verdict } from '../support/wire.js';
import type { ServicePlace, Step } from './service-place.js';
import { STEPS } from './service-place.js';
import type { Killable } from './servers.js';

type Victim =
  | 'service'
  | 'another service'
  | 'frozen service'
  | 'broker'
  | 'database'
  | 'hanging broker'
  | 'hanging database'
  | ClusterFault;

/** What happens to whom, at the moment at which a service reaches a step. */
export interface Fault {
  name: string;
  step: Step;
  /** How often the step is taken before. */
  spared: number;
  victims: Victim[];
}

/** The session is over by then, and the partitions are another's. */
const FROZEN_MS = 12_000;

/** Each row of the table once; what the row leaves open, and the order, come from `random`. */
export function everyFault(random: () => number): Fault[] {
  const oneOf = <T>(all: readonly T[]) => all[Math.floor(random() * all.length)]!;
  const at = (step: Step, name: string, ...victims: Victim[]): Fault => ({
    ...{ name, step, victims },
    spared: Math.floor(random() * 5),
  });
  const atAnyStep = (name: string, ...victims: Victim[]) => at(oneOf(STEPS), name, ...victims);
  const faults: Fault[] = [
    ...STEPS.map((step) => at(step, `service: ${step}`, 'service')),
    at(
      oneOf(['transaction open', 'committed, offset not']),
      'service stopped past its session',
      'frozen service',
    ),
    atAnyStep('broker', 'broker'),
    atAnyStep('database', 'database'),
    atAnyStep('broker hangs', 'hanging broker'),
    atAnyStep('database hangs', 'hanging database'),
    atAnyStep('two services', 'service', 'another service'),
    atAnyStep('service and broker', 'service', 'broker'),
    atAnyStep('service and database', 'service', 'database'),
    atAnyStep('broker and database', 'broker', 'database'),
    ...CLUSTER_FAULTS.map((fault) => atAnyStep(fault, fault)),
  ];
  return faults
    .map((fault) => ({ fault, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ fault }) => fault);
}

export interface Targets {
  places: ServicePlace[];
  broker: Killable;
  database: Killable;
  cluster: ClusterFaults;
}

/** Lets faults happen once a service takes their step. */
export class ArmedFaults {
  private armed: { fault: Fault; spared: number; recovered: (recovery: Promise<unknown>) => void }[] = [];

  constructor(
    private readonly targets: Targets,
    private readonly onFault: (fault: Fault) => void,
  ) {}

  /** @returns when it has happened and all that it met is up again; at once when it is called off before */
  arm(fault: Fault): Promise<unknown> {
    return new Promise((resolve) => this.armed.push({ fault, spared: fault.spared, recovered: resolve }));
  }

  /** What has not happened yet, will not. */
  callOff(): void {
    for (const { recovered } of this.armed.splice(0)) recovered(Promise.resolve());
  }

  onStep(step: Step, place: ServicePlace): Verdict {
    const index = this.armed.findIndex(({ fault }) => fault.step === step && this.canMeet(fault, place));
    if (index < 0 || this.armed[index]!.spared-- > 0) return 'pass';
    const [{ fault, recovered }] = this.armed.splice(index, 1) as [(typeof this.armed)[number]];
    this.onFault(fault);
    recovered(Promise.all(fault.victims.map((victim) => this.strike(victim, place))));
    return fault.victims.some((victim) => victim === 'service' || victim === 'frozen service')
      ? 'hold'
      : 'pass';
  }

  /** What is down already can't be killed. */
  private canMeet({ victims }: Fault, place: ServicePlace): boolean {
    const { broker, database } = this.targets;
    const meets = (...names: Victim[]) => names.some((name) => victims.includes(name));
    if (meets('broker', 'hanging broker') && !broker.isUp) return false;
    if (meets('database', 'hanging database') && !database.isUp) return false;
    return !victims.includes('another service') || this.otherThan(place) !== undefined;
  }

  private otherThan(place: ServicePlace): ServicePlace | undefined {
    return this.targets.places.find((other) => other !== place && other.isFair);
  }

  private strike(victim: Victim, place: ServicePlace): Promise<void> {
    const { broker, database, cluster } = this.targets;
    switch (victim) {
      case 'service':
        return killedAtStep(place);
      case 'another service':
        return killed(this.otherThan(place)!);
      case 'frozen service':
        return frozen(place);
      case 'broker':
        return broker.killAndRestart();
      case 'database':
        return database.killAndRestart();
      case 'hanging broker':
        return broker.hang(FROZEN_MS);
      case 'hanging database':
        return database.hang(FROZEN_MS);
      case 'a topic is deleted':
      case 'commands may not be read':
      case 'events may not be written':
      case 'dead letters may not be written':
        return cluster.strike(victim);
    }
  }
}

async function killedAtStep(place: ServicePlace): Promise<void> {
  await place.killAtStep();
  await place.untilUp();
}

function killed(place: ServicePlace): Promise<void> {
  place.kill();
  return place.untilUp();
}

async function frozen(place: ServicePlace): Promise<void> {
  place.freeze();
  await sleep(FROZEN_MS);
  place.thaw();
}
