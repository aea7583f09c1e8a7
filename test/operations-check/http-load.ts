import type { OutgoingHttpHeaders } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Answer, Balancer } from './balancer.js';
import type { Ledger, Outcome } from './ledger.js';

const CLIENTS = 4;
const PAUSE_MS = 20;

/**
 * Clients that create people, read them and change them, one request after another, until `isOver`. They change the version that they
 * know (`If-Match`), so that it can be told whether a change whose answer was lost is theirs; of others nobody could say.
 */
export class HttpLoad {
  private created = 0;
  private readonly clients: Promise<unknown>;

  /** @param round names what it creates */
  constructor(
    private readonly balancer: Balancer,
    private readonly ledger: Ledger,
    private readonly round: string,
    /** While this is false who finds no instance that is ready has failed; else it asks one all the same. */
    private readonly mayFail: () => boolean,
    private readonly isOver: () => boolean,
  ) {
    this.clients = Promise.all(Array.from({ length: CLIENTS }, () => this.run()));
  }

  async ended(): Promise<void> {
    await this.clients;
  }

  private async run(): Promise<void> {
    while (!this.isOver()) {
      const name = `${this.round}-${this.created++}`;
      const created = await this.ask('POST', '/people', `created ${name}`, { name });
      await sleep(PAUSE_MS);
      if (created?.status !== 201) continue;
      const { id } = JSON.parse(created.body) as { id: string };
      const read = await this.ask('GET', `/people/${id}`);
      if (read?.status === 200) this.compare(name, read);
      const renamed = `${name}-renamed`;
      await this.ask(
        'PATCH',
        `/people/${id}`,
        `updated ${renamed}`,
        { name: renamed },
        { 'if-match': created.etag },
      );
      await sleep(PAUSE_MS);
    }
  }

  private compare(name: string, { body }: Answer): void {
    const found = (JSON.parse(body) as { name: string }).name;
    if (found !== name) this.ledger.violations.push(`${name} was read as ${found}`);
  }

  private async ask(
    method: string,
    path: string,
    change?: string,
    body?: object,
    headers?: OutgoingHttpHeaders,
  ): Promise<Answer | undefined> {
    const { url, isReady } = this.balancer.next();
    const about = { by: 'HTTP' as const, ...(change && { change }) };
    if (url === undefined || (!isReady && !this.mayFail())) {
      this.ledger.add({ ...about, outcome: 'refused', told: 'no instance is ready' });
      await sleep(PAUSE_MS);
      return undefined;
    }
    const answer = await this.balancer.send(method, `${url}${path}`, body, headers);
    const outcome = outcomeOf(answer);
    this.ledger.add({ ...about, outcome, ...(outcome !== 'done' && { told: toldBy(method, answer) }) });
    return answer;
  }
}

/** An answer without a status, and one that says so, may have been applied or not. */
function outcomeOf({ status, body }: Answer): Outcome {
  if (status === undefined || body.includes('/problems/transaction-outcome-unknown')) return 'unknown';
  return status < 300 ? 'done' : 'refused';
}

function toldBy(method: string, { status, body }: Answer): string {
  if (status === undefined) return `${method}: ${body}`;
  const [type = ''] = /problems\/[\w-]+/.exec(body) ?? [];
  return `${method}: ${status} ${type.replace('problems/', '')}`;
}
