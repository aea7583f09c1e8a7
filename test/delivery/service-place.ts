import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../support/barrier.js';
import { API, startKafkaWire } from '../support/kafka-wire.js';
import type { ServiceHome, ServiceProcess } from '../support/service-process.js';
import { startWire, type Verdict, type Watcher, type Wire } from '../support/wire.js';
import { losing, type Losses } from './losing.js';

/** Where a message is when its service is caught, as it shows on the service's wires. */
export const STEPS = [
  'fetched',
  'transaction open',
  'committed, offset not',
  'reply not sent',
  'outbox not relayed',
  'relayed, row not removed',
] as const;
export type Step = (typeof STEPS)[number];

export interface PlaceSettings {
  home: ServiceHome;
  database: { url: string; port: number };
  broker: { port: number };
  replyTopic: string;
  /** Of answers of the database. */
  losses: Losses;
  /** Takes what the services of this place say. */
  logFile: string;
  environment: Record<string, string>;
  /** A service is about to take the step; says what becomes of that. */
  onStep: (step: Step, place: ServicePlace) => Verdict;
  /** Something that no fault explains. */
  onViolation: (violation: string) => unknown;
}

const START_MS = 120_000;
/** The last parameter, as it is bound: one character, and what follows it. */
const SECOND_TRIAL = Buffer.from([0, 0, 0, 1, '2'.charCodeAt(0)]);
/** Offsets are committed twice in it. */
const HELD_MS = 600;

/** Where a service runs, is started again when it ends, and is watched on its way to the database and the broker. */
export class ServicePlace {
  starts = 0;
  private service: ServiceProcess | undefined;
  private keeping: Promise<void> = Promise.resolve();
  private isWanted = false;
  private isKilled = false;
  private isDoomed = false;
  private isFrozen = false;
  private isTryingAlone = false;
  private hasCommitted = false;
  private wires: Wire[] = [];

  constructor(private readonly settings: PlaceSettings) {}

  static async open(settings: PlaceSettings): Promise<ServicePlace> {
    const place = new ServicePlace(settings);
    const { database, broker } = settings;
    place.wires = await Promise.all([
      startWire({ target: database.port, watch: () => place.watchDatabase() }),
      startKafkaWire(broker.port, (api, frame) => place.onKafkaRequest(api, frame)),
    ]);
    return place;
  }

  /** True while it serves, also where it is frozen. */
  get isUp(): boolean {
    return !this.isKilled && !this.isDoomed && this.service?.stderr.includes('People is running') === true;
  }

  /** False while it tries one message alone: to be killed then, too, is what convicts a message. */
  get isFair(): boolean {
    return this.isUp && !this.isTryingAlone;
  }

  start(): void {
    this.isWanted = true;
    this.keeping = this.keepUp();
  }

  async untilUp(): Promise<void> {
    await eventually(() => this.isUp, START_MS);
  }

  /** Once what has to wait for the step that it is held at has had time to go on without it. */
  async killAtStep(): Promise<void> {
    this.isDoomed = true;
    const doomed = this.service;
    await sleep(HELD_MS);
    if (this.service === doomed) this.kill();
  }

  kill(): void {
    this.isKilled = true;
    this.service?.signal('SIGKILL');
  }

  freeze(): void {
    this.isFrozen = true;
    this.service?.signal('SIGSTOP');
  }

  thaw(): void {
    this.service?.signal('SIGCONT');
    this.isFrozen = false;
    for (const wire of this.wires) wire.release();
  }

  /** As an orchestrator does. */
  async stop(): Promise<void> {
    this.isWanted = false;
    this.service?.signal('SIGTERM');
    await this.keeping;
    // What it said is no sign of life any more: the next round starts it again.
    this.service = undefined;
  }

  async close(): Promise<void> {
    this.isWanted = false;
    this.kill();
    await this.keeping;
    await Promise.all(this.wires.map((wire) => wire.close()));
  }

  private async keepUp(): Promise<void> {
    while (this.isWanted) {
      this.isKilled = this.isDoomed = this.isFrozen = this.hasCommitted = this.isTryingAlone = false;
      this.service = this.startService();
      this.starts++;
      const { code, stdout, stderr } = await this.service.ended;
      appendFileSync(this.settings.logFile, `${stderr}${stdout}--- ended: ${code}\n`);
      // Before it serves it may find no database.
      if (this.isKilled || !this.isUp) continue;
      if (this.isWanted || code !== 0)
        this.settings.onViolation(`a service ended with ${code}: ${stderr.slice(-2000)}`);
    }
  }

  private startService(): ServiceProcess {
    const { home, database, environment } = this.settings;
    const url = new URL(database.url);
    const [toDatabase, toBroker] = this.wires;
    url.port = String(toDatabase!.port);
    return home.start({
      ...environment,
      DATABASE_URL: url.href,
      KAFKA_BROKERS: `127.0.0.1:${toBroker!.port}`,
    });
  }

  /** What is still under way of one that has met its fault is no step of it any more. */
  private reached(step: Step): Verdict {
    const { isKilled, isDoomed, isFrozen, isTryingAlone } = this;
    return isKilled || isDoomed || isFrozen || isTryingAlone ? 'pass' : this.settings.onStep(step, this);
  }

  private watchDatabase(): Watcher {
    let hasClaimed = false;
    const losses = losing(this.settings.losses);
    /** One fault at a time, and none over a message that is tried alone. */
    const passedOrLost = (piece: Buffer) => (this.isFair && !this.isFrozen ? losses.request(piece) : 'pass');
    const orElse = (verdict: Verdict, piece: Buffer) => (verdict === 'pass' ? passedOrLost(piece) : verdict);
    return {
      ...losses,
      request: (piece) => {
        if (piece.includes('nestjs_people_crash_begin')) this.isTryingAlone ||= piece.includes(SECOND_TRIAL);
        if (piece.includes('nestjs_people_crash_end')) this.isTryingAlone = false;
        if (piece.includes('nestjs_people_inbox_claim')) {
          hasClaimed = true;
          return orElse(this.reached('fetched'), piece);
        }
        if (piece.includes('nestjs_people_relay_remove'))
          return orElse(this.reached('relayed, row not removed'), piece);
        if (!hasClaimed || !piece.includes('COMMIT\0')) return passedOrLost(piece);
        hasClaimed = false;
        const verdict = orElse(this.reached('transaction open'), piece);
        if (verdict === 'pass') this.hasCommitted = true;
        return verdict;
      },
    };
  }

  private onKafkaRequest(api: number, frame: Buffer): Verdict {
    if (api === API.OFFSET_COMMIT && this.hasCommitted) {
      this.hasCommitted = false;
      return this.reached('committed, offset not');
    }
    if (api !== API.PRODUCE) return 'pass';
    if (frame.includes(this.settings.replyTopic)) return this.reached('reply not sent');
    return frame.includes('people.events') ? this.reached('outbox not relayed') : 'pass';
  }
}
