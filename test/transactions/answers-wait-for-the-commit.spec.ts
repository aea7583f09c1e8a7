import {
  type CallHandler,
  Controller,
  type ExecutionContext,
  type NestInterceptor,
  Post,
  Res,
  UseInterceptors,
} from '@nestjs/common';
import { concat, defer, from, ignoreElements, mergeMap, Observable, of } from 'rxjs';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { poolOf } from '../support/people-app.js';
import { PLATFORMS, startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

let host: TransactionsHost;
let attempts: number[] = [];
/** What left the unit of work, with how much of it was committed at that moment. */
let left: [unknown, number | undefined][] = [];

class WatchesAnswers implements NestInterceptor {
  intercept(_: ExecutionContext, next: CallHandler) {
    return next
      .handle()
      .pipe(mergeMap(async (value) => (left.push([value, await host.committed('observed')]), value)));
  }
}

interface Reply {
  status(code: number): Reply;
  header(name: string, value: string): Reply;
  send(body: string): void;
}

const counting = async (name: string) => {
  attempts.push(currentTransaction()!.attempt);
  await host.count(name);
};

@Controller()
class AnswersController {
  @Post('status')
  @Transactional()
  async status(@Res({ passthrough: true }) response: Reply) {
    await counting('status');
    response.status(202).header('x-attempt', String(currentTransaction()!.attempt));
    await host.conflict(1);
    return { answer: 'of the handler' };
  }

  @Post('early')
  @Transactional()
  async early(@Res({ passthrough: true }) response: Reply) {
    await counting('early');
    response.status(202).send('too early');
    await host.conflict(1);
  }

  @Post('at-commit')
  @Transactional()
  async atCommit() {
    await counting('refused at commit');
    return { done: true };
  }

  @Post('observable')
  @Transactional()
  @UseInterceptors(WatchesAnswers)
  observable(): Observable<string> {
    const attempt = currentTransaction()!.attempt;
    return concat(
      of(`first value of attempt ${attempt}`),
      defer(() => from(counting('observed'))).pipe(ignoreElements()),
      defer(() => from(host.conflict(1))).pipe(ignoreElements()),
      of(`second value of attempt ${attempt}`),
    );
  }

  @Post('array')
  @Transactional()
  async array() {
    return [1, [2]];
  }
}

beforeEach(() => {
  attempts = [];
  left = [];
});

describe.each(PLATFORMS)('on %s', (platform) => {
  beforeAll(async () => {
    host = await startTransactionsHost({ platform, controllers: [AnswersController] });
  });
  afterAll(() => host.close());

  it('status and headers that a handler sets reach the client with its answer', async () => {
    const response = await host.post('/status');
    expect([response.status, response.headers.get('x-attempt'), await response.json()]).toEqual([
      202,
      '2',
      { answer: 'of the handler' },
    ]);
    expect(attempts).toEqual([1, 2]);
    expect(await host.committed('status')).toBe(1);
  });

  it('an answer that was sent all the same is not followed by another attempt', async () => {
    const response = await host.post('/early');
    expect([response.status, await response.text()]).toEqual([202, 'too early']);
    // The answer came before the end of the unit of work.
    await eventually(() => poolOf(host.dataSource).borrowed === 0);
    expect(attempts).toEqual([1]);
    expect(await host.committed('early')).toBeUndefined();
  });

  it('a commit that fails is answered as the failure it is', async () => {
    await host.database.query(`
      CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '40001'; END $$;
      CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON counters DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.name = 'refused at commit') EXECUTE FUNCTION refuse();`);
    const response = await host.post('/at-commit');
    expect(response.status).toBe(503);
    expect(attempts).toHaveLength(10);
    expect(await host.committed('refused at commit')).toBeUndefined();
  });

  it('all values of an Observable are sent after the commit, and none of an attempt that failed', async () => {
    const response = await host.post('/observable');
    expect(await response.text()).toBe('second value of attempt 2');
    expect(attempts).toEqual([1, 2]);
    expect(left).toEqual([
      ['first value of attempt 2', 1],
      ['second value of attempt 2', 1],
    ]);
  });

  it('a list is sent as the list it is', async () => {
    expect(await (await host.post('/array')).json()).toEqual([1, [2]]);
  });
});
