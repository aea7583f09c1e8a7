import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Instance } from './instances.js';

// As docs/operations/kubernetes.yml asks for, but more often.
const EVERY_MS = 200;
const PROBE_MS = 2_000;
const FAILURES = 2;
const ANSWER_MS = 60_000;

/** What came back; no status where nothing did. */
export interface Answer {
  status?: number;
  body: string;
  etag?: string | undefined;
}

/** Where a request may go. */
export interface Upstream {
  /** undefined: there is none. */
  url: string | undefined;
  /** It has said so itself a moment ago. */
  isReady: boolean;
}

/** Asks each instance whether it is ready, and goes round those that are, over connections that are kept. */
export class Balancer {
  private readonly ready = new Set<string>();
  private readonly agent = new http.Agent({ keepAlive: true });
  private turn = 0;
  private isOver = false;
  private readonly probing: Promise<unknown>;

  constructor(private readonly instances: readonly Instance[]) {
    this.probing = Promise.all(instances.map((instance) => this.probe(instance)));
  }

  /** Whose turn it is; one that is not ready where none is. */
  next(): Upstream {
    const urls = this.instances.flatMap(({ url }) => url ?? []);
    const ready = urls.filter((url) => this.ready.has(url));
    const among = ready.length > 0 ? ready : urls;
    return { url: among[this.turn++ % among.length], isReady: ready.length > 0 };
  }

  isReady({ url }: Instance): boolean {
    return url !== undefined && this.ready.has(url);
  }

  get areAllReady(): boolean {
    return this.instances.every((instance) => this.isReady(instance));
  }

  send(method: string, url: string, body?: object, headers: http.OutgoingHttpHeaders = {}): Promise<Answer> {
    return request(this.agent, {
      method,
      url,
      timeoutMs: ANSWER_MS,
      headers,
      body: body && JSON.stringify(body),
    });
  }

  async close(): Promise<void> {
    this.isOver = true;
    await this.probing;
    this.agent.destroy();
  }

  private async probe(instance: Instance): Promise<void> {
    let failures = 0;
    while (!this.isOver) {
      const { url } = instance;
      if (url !== undefined) {
        const { status } = await request(this.agent, {
          ...{ method: 'GET', url: `${url}/health/ready`, timeoutMs: PROBE_MS },
        });
        failures = status === 200 ? 0 : failures + 1;
        if (failures === 0) this.ready.add(url);
        else if (failures >= FAILURES) this.ready.delete(url);
      }
      await sleep(EVERY_MS);
    }
  }
}

interface Request {
  method: string;
  url: string;
  timeoutMs: number;
  headers?: http.OutgoingHttpHeaders;
  body?: string | undefined;
}

/** Never rejects: what goes wrong is an answer without a status. */
function request(agent: http.Agent, { method, url, timeoutMs, headers, body }: Request): Promise<Answer> {
  return new Promise((resolve) => {
    const type = body === undefined ? {} : { 'content-type': 'application/json' };
    const sent = http.request(url, { method, agent, headers: { ...type, ...headers } }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
      response.on('end', () =>
        settle({ status: response.statusCode!, body: text, etag: response.headers.etag }),
      );
      response.on('error', (error) => settle({ body: error.message }));
      response.on('close', () => settle({ body: 'the answer was cut off' }));
    });
    const late = setTimeout(() => {
      settle({ body: `no answer in ${timeoutMs} ms` });
      sent.destroy();
    }, timeoutMs);
    const settle = (answer: Answer) => {
      clearTimeout(late);
      resolve(answer);
    };
    sent.on('error', (error) => settle({ body: error.message }));
    sent.end(body);
  });
}
