import {
  type ArgumentsHost,
  Body,
  Catch,
  Controller,
  type ExceptionFilter,
  Injectable,
  NotFoundException,
  Post,
  UseFilters,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import type { EntityManager } from 'typeorm';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional, TransactionManager } from '../../src/transactions/transactional.decorator.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { Counter, startTransactionsHost } from '../support/transactions-host.js';

const host = duringTests(() =>
  startTransactionsHost({ controllers: [CountersController], providers: [Counters] }),
);
let attempts: number[] = [];
const attempted = () => attempts.push(currentTransaction()!.attempt);

/** Says what it is given of a failure, outside of the unit of work that failed. */
@Catch()
class TellingFilter implements ExceptionFilter {
  constructor(private readonly adapterHost: HttpAdapterHost) {}

  catch(error: { transactionId?: string; attempts?: number }, context: ArgumentsHost): void {
    const { transactionId, attempts } = error;
    const answer = { transactionId, attempts, isInUnit: currentTransaction() !== undefined };
    this.adapterHost.httpAdapter.reply(context.switchToHttp().getResponse(), answer, 500);
  }
}

interface Order {
  lines: string[];
  placed: Date;
  tags: Set<string>;
  prices: Map<string, { amount: number }>;
}

@Injectable()
class Counters {
  ids: string[] = [];

  @Transactional({ isolationLevel: 'SERIALIZABLE' })
  async count(name: string): Promise<unknown> {
    attempted();
    await host.count(name);
    await host.conflict(2);
    return currentTransaction()!.isolationLevel;
  }

  @Transactional()
  async save(name: string, @TransactionManager() manager?: EntityManager): Promise<number> {
    attempted();
    await manager!.getRepository(Counter).save({ name, value: 7 });
    await host.conflict(1);
    return manager!.getRepository(Counter).countBy({ name });
  }

  @Transactional()
  async fillIn(order: Order): Promise<string> {
    attempted();
    order.lines.push('postage');
    order.placed.setFullYear(order.placed.getFullYear() + 1);
    order.tags.add(`tag ${order.tags.size}`);
    order.prices.get('tea')!.amount *= 2;
    order.prices.set(`price ${order.prices.size}`, { amount: 1 });
    const seen = [...order.lines, order.placed.getUTCFullYear(), ...order.tags, ...order.prices.keys()];
    await host.conflict(2);
    return `${seen.join(' ')} ${order.prices.get('tea')!.amount}`;
  }

  @Transactional<[string, number]>({ conflictKey: (name) => name })
  async inTurn(_: string, turn: number): Promise<void> {
    order.push(`${turn} begins`);
    await (meeting?.() ?? currentTransaction()!.query({ text: 'SELECT 1' }));
    order.push(`${turn} ends`);
  }
}

let order: string[] = [];
let meeting: (() => Promise<void>) | undefined;

@Controller()
class CountersController {
  constructor(private readonly counters: Counters) {}

  @Post('missing')
  @Transactional()
  async missing() {
    attempted();
    await host.count('missing');
    throw new NotFoundException('no such thing');
  }

  @Post('exhausted')
  @UseFilters(TellingFilter)
  @Transactional({ maxAttempts: 2 })
  async exhausted() {
    await host.conflict(2);
  }

  @Post('in-turn')
  @Transactional<[{ name: string }]>({ conflictKey: ({ name }) => `key of ${name}` })
  async inTurn(@Body() body: { name: string; seen?: true }, @TransactionManager() manager?: EntityManager) {
    attempted();
    await manager!.query('INSERT INTO counters VALUES ($1, $2)', [body.name, body.seen ? 0 : 1]);
    body.seen = true;
    await host.conflict(1);
    return { key: currentTransaction()!.conflictKey };
  }

  @Post('service')
  async service() {
    return { level: await this.counters.count('service') };
  }
}

beforeEach(() => {
  attempts = [];
  order = [];
  meeting = undefined;
});

describe('a method of a provider', () => {
  it('is committed once, in the attempt that met no conflict', async () => {
    expect(await host.app.get(Counters).count('provider')).toBe('SERIALIZABLE');
    expect(attempts).toEqual([1, 2, 3]);
    expect(await host.committed('provider')).toBe(1);
  });

  it('does the same where a handler that has no unit of work calls it', async () => {
    expect(await (await host.post('/service')).json()).toEqual({ level: 'SERIALIZABLE' });
    expect(attempts).toEqual([1, 2, 3]);
    expect(await host.committed('service')).toBe(1);
  });

  it('is given the manager of its unit of work in each attempt', async () => {
    expect(await host.app.get(Counters).save('saved')).toBe(1);
    expect(attempts).toEqual([1, 2]);
    expect(await host.committed('saved')).toBe(7);
  });

  it('finds its arguments as the caller gave them in every attempt, and hands the last changes on', async () => {
    const prices = new Map([['tea', { amount: 3 }]]);
    const given = { lines: ['tea'], placed: new Date('2020-06-01'), tags: new Set(['new']), prices };
    expect(await host.app.get(Counters).fillIn(given)).toBe('tea postage 2021 new tag 1 tea price 1 6');
    expect(attempts).toEqual([1, 2, 3]);
    expect(given.lines).toEqual(['tea', 'postage']);
  });

  it('runs side by side for different keys, and one after another for the same', async () => {
    const counters = host.app.get(Counters);
    // First, so that both have an open connection at hand and nothing but the key keeps them apart afterwards.
    meeting = barrier(2);
    await Promise.all([counters.inTurn('one', 1), counters.inTurn('other', 2)]);
    expect(order.splice(0).slice(0, 2)).toEqual(['1 begins', '2 begins']);
    meeting = undefined;
    await Promise.all([counters.inTurn('same', 3), counters.inTurn('same', 4)]);
    expect(order).toEqual(['3 begins', '3 ends', '4 begins', '4 ends']);
  });

  it('of an object that Nest did not make is refused', () => {
    expect(() => new Counters().count('by hand')).toThrow(/Counters\.count.*not made by Nest/);
  });
});

describe('a handler', () => {
  it('that answers with an error of its own is rolled back and not run again', async () => {
    const response = await host.post('/missing');
    expect([response.status, attempts]).toEqual([404, [1]]);
    expect(await host.committed('missing')).toBeUndefined();
  });

  it('whose key is made of its parameters has them, and its manager, in every attempt', async () => {
    const response = await host.post('/in-turn', { name: 'keyed' });
    expect(await response.json()).toEqual({ key: 'key of keyed' });
    expect(attempts).toEqual([1, 2]);
    expect(await host.committed('keyed')).toBe(1);
  });

  it('that fails for good tells an exception filter which unit of work it was', async () => {
    const response = await host.post('/exhausted');
    expect(await response.json()).toEqual({
      transactionId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      attempts: 2,
      isInUnit: false,
    });
  });
});
