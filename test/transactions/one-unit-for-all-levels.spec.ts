import { Controller, Injectable, Post, UseInterceptors } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

let host: TransactionsHost;
let runs: Record<string, number[]> = {};
const ran = (who: string) => (runs[who] ??= []).push(currentTransaction()!.attempt);

@Injectable()
class Stock {
  @Transactional()
  async take() {
    ran('service');
    await host.conflict(10);
  }
}

@Controller()
@UseInterceptors(RetryingTransactionInterceptor)
class StockController {
  constructor(private readonly stock: Stock) {}

  @Post('take')
  @Transactional()
  async take() {
    ran('handler');
    await this.stock.take();
  }

  @Post('apart')
  @Transactional({ propagation: 'REQUIRES_NEW' })
  async apart() {
    ran('handler');
    await host.count('apart');
    return { transactions: depth() };
  }

  @Post('plain')
  async plain() {
    await host.count('plain');
  }
}

/** How many units of work are around the caller. */
const depth = () => {
  let units = 0;
  for (let unit = currentTransaction(); unit; unit = unit.parent) units++;
  return units;
};

beforeEach(() => {
  runs = {};
});

describe('units of work at every level: application, controller, handler and service', () => {
  beforeAll(async () => {
    host = await startTransactionsHost({
      controllers: [StockController],
      providers: [Stock, { provide: APP_INTERCEPTOR, useClass: RetryingTransactionInterceptor }],
      poolSize: 1,
    });
  });
  afterAll(() => host.close());

  it('are one, which is tried ten times and not ten times ten', async () => {
    const response = await host.post('/take');
    const tenAttempts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    expect(runs).toEqual({ handler: tenAttempts, service: tenAttempts });
    expect(response.status).toBe(503);
    expect(await response.text()).toContain('/problems/transaction-retries-exhausted');
  });

  it('are one also where the handler asks for a unit of its own, so that it needs one connection', async () => {
    const response = await host.post('/apart');
    expect(await response.json()).toEqual({ transactions: 1 });
    expect(await host.committed('apart')).toBe(1);
  });

  it('reach a handler that says nothing about transactions', async () => {
    expect((await host.post('/plain')).status).toBe(201);
    expect(await host.committed('plain')).toBe(1);
  });
});
