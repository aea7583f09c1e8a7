import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceHome } from '../support/service-process.js';
import { BadMessages } from './bad-messages.js';
import { Bystander } from './bystander.js';
import { Crowd, IDLE, slowReads, SLOW_UPLOADS } from './crowd.js';

export interface SoakOptions {
  seconds: number;
  slowUploads: number;
  slowReaders: number;
  idle: number;
  /** Between two bad messages. */
  messageEveryMs: number;
  /** What the service may have of V8's old space, in MiB. */
  heapMegabytes: number;
  /** What its process may take at most, in MiB. */
  residentMegabytes: number;
  /** Of the service: servers, where there are some already. */
  environment?: Record<string, string>;
  signal?: AbortSignal;
  onProgress?: (message: string) => void;
}

export interface SoakCounts {
  bystander: { answered: number; slowestMs: number };
  messages: { bad: number; requestsAnswered: number };
  /** How often a connection of each crowd has ended; readers leave by themselves. */
  ended: { slowUploads: number; slowReaders: number; idle: number };
  residentMegabytes: { before: number; highest: number; after: number };
  usedMegabytes: { before: number; after: number };
  violations: string[];
}

const LARGE = 'large';
const LARGE_PEOPLE = 20;
const MEBIBYTE = 1024 * 1024;
/** For the last replies, and for memory to be given back. */
const AFTERWARDS_MS = 60_000;
/** What may be in use afterwards, beside what was before. */
const COMES_BACK_TO_MEGABYTES = 100;

/** Misuses the service in every way for a while, and tells whether those who did not were served all the same. */
export async function checkSoak(options: SoakOptions): Promise<SoakCounts> {
  const { onProgress = () => undefined, heapMegabytes } = options;
  const home = new ServiceHome();
  try {
    const service = home.start({
      NODE_OPTIONS: `--max-old-space-size=${heapMegabytes} --disable-warning=TimeoutNegativeWarning`,
      LOG_LEVEL: 'error',
      ...options.environment,
    });
    const { http, kafkaBrokers } = await service.services();
    onProgress(`the service runs at ${http}`);
    await createLargePeople(http);
    const before = await memoryOf(http);
    const end = new AbortController();
    const bystander = new Bystander(http);
    const messages = new BadMessages(kafkaBrokers, options.messageEveryMs);
    const asking = bystander.ask(end.signal);
    const sending = messages.send(end.signal);
    const port = Number(new URL(http).port);
    const crowds = {
      slowUploads: await Crowd.gather(port, options.slowUploads, SLOW_UPLOADS),
      slowReaders: await Crowd.gather(port, options.slowReaders, slowReads(LARGE)),
      idle: await Crowd.gather(port, options.idle, IDLE),
    };
    let highest = before.resident;
    const until = Date.now() + options.seconds * 1000;
    for (let n = 1; Date.now() < until && !service.hasEnded && !options.signal?.aborted; n++) {
      await sleep(1000);
      highest = Math.max(highest, (await memoryOf(http)).resident);
      if (n % 10 === 0)
        onProgress(
          `${bystander.answered} answered, ${bystander.failures.length} not, ${messages.sent} bad messages, ${Math.round(highest)} MiB`,
        );
    }
    for (const crowd of Object.values(crowds)) crowd.leave();
    end.abort();
    await Promise.all([asking, sending]);
    // What the system has given stays with a process; what it uses comes back.
    const bound = before.used + COMES_BACK_TO_MEGABYTES;
    let after = await memoryOf(http);
    const deadline = Date.now() + AFTERWARDS_MS;
    while ((messages.unanswered > 0 || after.used > bound) && Date.now() < deadline && !service.hasEnded) {
      await sleep(1000);
      after = await memoryOf(http);
    }
    await messages.close();
    const violations = bystander.failures.map((failure) => `a bystander was not served: ${failure}`);
    if (bystander.answered === 0) violations.push('no bystander was served');
    if (messages.answered === 0) violations.push('no message of a bystander was answered');
    if (messages.unanswered > 0)
      violations.push(`messages of bystanders without answer: ${messages.unanswered}`);
    if (service.hasEnded) violations.push(`the service has ended: ${service.stderr.slice(-2000)}`);
    if (highest > options.residentMegabytes) violations.push(`its memory reached ${Math.round(highest)} MiB`);
    if (after.used > bound)
      violations.push(`its memory did not come back: ${Math.round(after.used)} MiB are in use`);
    service.signal('SIGTERM');
    const { code } = await service.ended;
    if (code !== 0) violations.push(`it ended with ${code}: ${service.stderr.slice(-2000)}`);
    return {
      bystander: { answered: bystander.answered, slowestMs: Math.round(bystander.slowestMs) },
      messages: { bad: messages.sent, requestsAnswered: messages.answered },
      ended: {
        slowUploads: crowds.slowUploads.ended,
        slowReaders: crowds.slowReaders.ended,
        idle: crowds.idle.ended,
      },
      residentMegabytes: {
        before: Math.round(before.resident),
        highest: Math.round(highest),
        after: Math.round(after.resident),
      },
      usedMegabytes: { before: Math.round(before.used), after: Math.round(after.used) },
      violations,
    };
  } finally {
    await home.remove();
  }
}

/** Whose page and export are more than a socket takes at once. */
async function createLargePeople(http: string): Promise<void> {
  const body = JSON.stringify({ name: LARGE, data: { text: 'x'.repeat(900_000) } });
  for (let n = 0; n < LARGE_PEOPLE; n++) {
    const response = await fetch(`${http}/people`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    });
    if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
  }
}

/** Of the process, in MiB: what the system has given it, and what of that is in use. As high as can be when it does not say. */
async function memoryOf(http: string): Promise<{ resident: number; used: number }> {
  try {
    const text = await (await fetch(`${http}/metrics`, { signal: AbortSignal.timeout(30_000) })).text();
    const [resident, heap, external] = [
      'process_resident_memory_bytes',
      'nodejs_heap_size_used_bytes',
      'nodejs_external_memory_bytes',
    ].map((name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)![1]) / MEBIBYTE) as [
      number,
      number,
      number,
    ];
    return { resident, used: heap + external };
  } catch {
    return { resident: Infinity, used: Infinity };
  }
}
