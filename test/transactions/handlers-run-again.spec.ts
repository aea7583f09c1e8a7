import {
  Body,
  type CallHandler,
  type CanActivate,
  Controller,
  createParamDecorator,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  Param,
  type PipeTransform,
  Post,
  Query,
  Scope,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common';
import type { EntityManager } from 'typeorm';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional, TransactionManager } from '../../src/transactions/transactional.decorator.js';
import { PLATFORMS, startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

let host: TransactionsHost;
/** Who ran, and in which attempt; 0 is outside of any. */
let runs: Record<string, number[]> = {};
const ran = (who: string) => (runs[who] ??= []).push(currentTransaction()?.attempt ?? 0);

const interceptor = (who: string) => {
  class RanInterceptor implements NestInterceptor {
    intercept(_: ExecutionContext, next: CallHandler) {
      ran(who);
      return next.handle();
    }
  }
  return RanInterceptor;
};

class RanGuard implements CanActivate {
  canActivate(): boolean {
    ran('guard');
    return true;
  }
}

class RanPipe implements PipeTransform {
  transform(value: unknown): unknown {
    ran('pipe');
    return value;
  }
}

const RanParameter = createParamDecorator(() => ran('parameter decorator'));

@Injectable({ scope: Scope.REQUEST })
class OfOneRequest {
  attempts = 0;

  constructor() {
    ran('provider of the request');
  }
}

interface Basket {
  items: string[];
  owner: { name: string; visits: number };
  added?: number;
}

@Controller()
class ShopController {
  constructor(private readonly ofOneRequest: OfOneRequest) {}

  @Post('everything')
  @UseGuards(RanGuard)
  @UseInterceptors(interceptor('outer'), RetryingTransactionInterceptor, interceptor('inner'))
  async everything(@Body(RanPipe) _: unknown, @RanParameter() __: unknown) {
    ran('handler');
    this.ofOneRequest.attempts++;
    await host.conflict(2);
    return { attempts: this.ofOneRequest.attempts };
  }

  @Post('baskets/:id')
  @Transactional()
  async order(@Body() basket: Basket, @Query() query: { tags: string }, @Param() params: { id: string }) {
    ran('handler');
    basket.items.push('a gift');
    basket.owner.visits++;
    query.tags += '!';
    params.id += '!';
    basket.added = (basket.added ?? 0) + 1;
    const seen = JSON.stringify({ basket, tags: query.tags, id: params.id });
    await host.conflict(2);
    return seen;
  }

  @Post('managers')
  @UseInterceptors(RetryingTransactionInterceptor)
  async managers(@TransactionManager() manager: EntityManager) {
    await manager.query(`INSERT INTO counters VALUES ($1, 1)`, [`attempt ${currentTransaction()!.attempt}`]);
    managers.push([manager, currentTransaction()!.manager]);
    await host.conflict(2);
  }

  @Post('configured')
  @UseInterceptors(RetryingTransactionInterceptor.with({ isolationLevel: 'SERIALIZABLE', maxAttempts: 2 }))
  async configured() {
    ran('handler');
    levels.push(currentTransaction()!.isolationLevel);
    await host.conflict(10);
  }
}

const managers: [EntityManager, EntityManager][] = [];
const levels: unknown[] = [];

beforeEach(() => {
  runs = {};
});

describe.each(PLATFORMS)('on %s, a handler that meets two conflicts', (platform) => {
  beforeAll(async () => {
    host = await startTransactionsHost({
      platform,
      controllers: [ShopController],
      providers: [OfOneRequest],
      prepare: (app) =>
        app.use((_: unknown, __: unknown, next: () => void) => {
          ran('middleware');
          next();
        }),
    });
  });
  afterAll(() => host.close());

  it('runs again with its pipes, parameter decorators and inner interceptors, and with nothing else', async () => {
    const response = await host.post('/everything');
    expect(runs).toEqual({
      middleware: [0],
      'provider of the request': [0],
      guard: [0],
      outer: [0],
      inner: [1, 2, 3],
      pipe: [1, 2, 3],
      'parameter decorator': [1, 2, 3],
      handler: [1, 2, 3],
    });
    // What is made once for a request keeps what a failed attempt did to it.
    expect(await response.json()).toEqual({ attempts: 3 });
  });

  it('finds body, query and parameters as they were sent in every attempt', async () => {
    const basket = { items: ['tea'], owner: { name: 'Ada', visits: 1 } };
    const response = await host.post('/baskets/7?tags=new', basket);
    expect(runs.handler).toEqual([1, 2, 3]);
    expect(await response.json()).toEqual({
      basket: { items: ['tea', 'a gift'], owner: { name: 'Ada', visits: 2 }, added: 1 },
      tags: 'new!',
      id: '7!',
    });
  });

  it('is handed the manager of the attempt it runs in', async () => {
    managers.length = 0;
    expect((await host.post('/managers')).status).toBe(201);
    expect(managers).toHaveLength(3);
    for (const [given, current] of managers) expect(given).toBe(current);
    expect(new Set(managers.flat()).size).toBe(3);
    const rows = await host.database.query(`SELECT name FROM counters WHERE name LIKE 'attempt%'`);
    expect(rows).toEqual([{ name: 'attempt 3' }]);
  });

  it('has the options that its interceptor was given', async () => {
    levels.length = 0;
    const response = await host.post('/configured');
    expect(levels).toEqual(['SERIALIZABLE', 'SERIALIZABLE']);
    expect(response.status).toBe(503);
    expect(await response.text()).toContain('in each of its 2 attempts');
  });
});
