import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

/** A bystander who waits longer than this for an answer has not been served. */
const PATIENCE_MS = 30_000;

/** An honest client beside all that: creates a person, reads, changes, finds and removes it, one request after another. */
export class Bystander {
  answered = 0;
  slowestMs = 0;
  readonly failures: string[] = [];

  constructor(private readonly url: string) {}

  async ask(until: AbortSignal): Promise<void> {
    while (!until.aborted) {
      const id = randomUUID();
      const name = `bystander-${id}`;
      await this.request('POST', '/people', 201, JSON.stringify({ id, name }));
      await this.request('GET', `/people/${id}`, 200);
      await this.request('PATCH', `/people/${id}`, 200, '{"data":{"n":1}}');
      await this.request('GET', `/people?name=${name}`, 200);
      await this.request('DELETE', `/people/${id}`, 204);
      await sleep(100);
    }
  }

  private async request(method: string, path: string, expected: number, body?: string): Promise<void> {
    const begun = performance.now();
    try {
      const response = await fetch(`${this.url}${path}`, {
        method,
        signal: AbortSignal.timeout(PATIENCE_MS),
        ...(body !== undefined && { body, headers: { 'content-type': 'application/json' } }),
      });
      const text = await response.text();
      if (response.status !== expected) throw new Error(`${response.status} ${text.slice(0, 200)}`);
      this.answered++;
    } catch (error) {
      const { message, cause } = error as Error;
      this.failures.push(
        `${method} ${path}: ${message}${cause instanceof Error ? ` (${cause.message})` : ''}`,
      );
    }
    this.slowestMs = Math.max(this.slowestMs, performance.now() - begun);
  }
}
