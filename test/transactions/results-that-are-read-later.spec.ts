import { Controller, Get, Post, Res, Sse, StreamableFile, UseInterceptors } from '@nestjs/common';
import { Readable } from 'node:stream';
import { to as copyTo } from 'pg-copy-streams';
import { type Observable, of, tap } from 'rxjs';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { PLATFORMS, startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

let host: TransactionsHost;
let attempts: number[] = [];

const counting = async (name: string) => {
  attempts.push(currentTransaction()!.attempt);
  await host.count(name);
};

const eventsUntilNobodyListens = () =>
  of({ data: 'an event' }).pipe(tap(() => attempts.push(currentTransaction()?.attempt ?? 0)));

@Controller()
class ResultsController {
  @Post('own-answer')
  @UseInterceptors(RetryingTransactionInterceptor)
  async ownAnswer(@Res() response: { send: (body: string) => void }) {
    attempts.push(1);
    response.send('done');
  }

  @Post('file')
  @Transactional()
  async file() {
    await counting('file');
    return new StreamableFile(Buffer.from('bytes'));
  }

  @Post('stream')
  @Transactional()
  async stream() {
    await counting('stream');
    return Readable.from(['bytes']);
  }

  @Post('copy')
  @Transactional()
  async copy() {
    await counting('copy');
    return currentTransaction()!.client.query(copyTo('COPY counters TO STDOUT'));
  }

  @Post('generator')
  @Transactional()
  async generator() {
    await counting('generator');
    return (async function* () {
      yield await currentTransaction()?.query({ text: 'SELECT 1' });
    })();
  }

  @Get('events-below')
  @UseInterceptors(RetryingTransactionInterceptor)
  @Sse('events')
  events(): Observable<{ data: string }> {
    return eventsUntilNobodyListens();
  }

  @Sse('events-above')
  @Transactional()
  eventsAbove(): Observable<{ data: string }> {
    return eventsUntilNobodyListens();
  }
}

beforeEach(() => {
  attempts = [];
});

describe.each(PLATFORMS)('on %s', (platform) => {
  beforeAll(async () => {
    host = await startTransactionsHost({ platform, controllers: [ResultsController] });
  });
  afterAll(() => host.close());

  it('a handler that sends the answer itself is not run', async () => {
    const response = await host.post('/own-answer');
    expect([response.status, attempts]).toEqual([500, []]);
  });

  it.each(['file', 'stream', 'generator'])(
    'a %s, which would be read after the end of its unit of work, is refused and rolled back',
    async (result) => {
      const response = await host.post(`/${result}`);
      expect([response.status, attempts]).toEqual([500, [1]]);
      expect(await host.committed(result)).toBeUndefined();
    },
  );

  it.each(['/events', '/events-above'])('events are not sent from a unit of work (%s)', async (path) => {
    const response = await host.request(path);
    await response.text();
    expect(attempts).toEqual([]);
  });
});

describe('a stream of the transaction’s own connection', () => {
  beforeAll(async () => {
    host = await startTransactionsHost({ controllers: [ResultsController], poolSize: 1 });
  });
  afterAll(() => host.close());

  it('that a handler returns is refused, and its connection is not handed to the next as it is', async () => {
    const response = await host.post('/copy');
    expect([response.status, attempts]).toEqual([500, [1]]);
    expect(await host.committed('copy')).toBeUndefined();
    expect(await host.dataSource.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });
});
