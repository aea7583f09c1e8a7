import { Controller, Get, Res, Sse, StreamableFile, UseInterceptors } from '@nestjs/common';
import { concat, from, Observable, of } from 'rxjs';
import { Readable } from 'node:stream';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { ADAPTERS, type Host, startHost } from '../support/transactions-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

const insert = (name: string) =>
  currentTransaction()!.query({ text: 'INSERT INTO people (name) VALUES ($1)', values: [name] });
const stored = async (name: string) =>
  (await database.query('SELECT FROM people WHERE name = $1', [name])).length;
const conflict = () =>
  currentTransaction()!.query({ text: `DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$` });

interface Response {
  status(code: number): Response;
  send(body: unknown): Response;
}

let attempts = 0;

@Controller('answers')
@UseInterceptors(RetryingTransactionInterceptor)
class AnswersController {
  @Get('passthrough')
  async passthrough(@Res({ passthrough: true }) response: Response): Promise<object> {
    response.status(202);
    await insert('passthrough');
    return { stored: await stored('passthrough') };
  }

  @Get('res')
  async res(@Res() response: Response): Promise<void> {
    await insert('res');
    response.send('sent');
  }

  @Get('sent')
  async sent(@Res({ passthrough: true }) response: Response): Promise<void> {
    attempts++;
    response.send('sent');
    await conflict();
  }

  @Get('file')
  async file(): Promise<StreamableFile> {
    await insert('file');
    return new StreamableFile(Buffer.from('file'));
  }

  @Get('stream')
  async stream(): Promise<Readable> {
    await insert('stream');
    return Readable.from(['stream']);
  }

  @Get('observable')
  observable(): Observable<unknown> {
    return concat(of('first'), from(insert('observable').then(() => 'last')));
  }

  @Get('observable-fails')
  observableFails(): Observable<unknown> {
    return concat(of('first'), from(insert('fails').then(() => Promise.reject(new Error('no')))));
  }

  @Sse('sse')
  sse(): Observable<{ data: string }> {
    return of({ data: 'x' });
  }
}

describe.each(ADAPTERS)('on %s, the answer of a handler', (adapter) => {
  let host: Host;
  beforeAll(async () => {
    await database.query('TRUNCATE people');
    host = await startHost({ database, adapter, controllers: [AnswersController] });
  });
  afterEach(() => expect(host.borrowed()).toBe(0));
  afterAll(() => host.close());
  const get = (path: string) => host.request(`/answers/${path}`);

  it('is sent after the commit, with the status that the handler chose', async () => {
    const response = await get('passthrough');
    expect([response.status, await response.json()]).toEqual([202, { stored: 0 }]);
    expect(await stored('passthrough')).toBe(1);
  });

  it('that it would send itself is refused, and nothing is changed', async () => {
    expect((await get('res')).status).toBe(500);
    expect(await stored('res')).toBe(0);
  });

  it('that was sent before a conflict is not sent again: there is no other attempt', async () => {
    attempts = 0;
    await (await get('sent')).text();
    await eventually(() => host.borrowed() === 0);
    expect(attempts).toBe(1);
  });

  it.each(['file', 'stream'])('that is read later (%s) is refused, and nothing is changed', async (path) => {
    expect((await get(path)).status).toBe(500);
    expect(await stored(path)).toBe(0);
  });

  it('that is an Observable is what it would be without a transaction, after the commit', async () => {
    expect(await (await get('observable')).text()).toBe('last');
    expect(await stored('observable')).toBe(1);
    expect((await get('observable-fails')).status).toBe(500);
    expect(await stored('fails')).toBe(0);
  });

  it('that is a stream of events is refused', async () => {
    expect((await get('sse')).status).toBe(500);
  });
});

it('@Transactional on a handler that answers by itself is refused when it is applied', () => {
  expect(() => {
    class Wrong {
      @Get()
      @Transactional()
      async handle(@Res() response: Response): Promise<void> {
        response.send('x');
      }
    }
    return Wrong;
  }).toThrow('Wrong.handle: a handler that sends the answer itself sends it before the commit');
});
