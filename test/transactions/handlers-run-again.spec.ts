import {
  Body,
  type CallHandler,
  Controller,
  createParamDecorator,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  type PipeTransform,
  Post,
  Req,
  Scope,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import type { Observable } from 'rxjs';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { ADAPTERS, type Host, startHost } from '../support/transactions-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
let id: string;
let counts: Record<string, number>;
const count = (what: string) => (counts[what] = (counts[what] ?? 0) + 1);
beforeAll(async () => {
  database = await createDatabase();
});
beforeEach(async () => {
  counts = {};
  const [row] = await database.query<{ id: string }>(`INSERT INTO people (name) VALUES ('Ada') RETURNING id`);
  id = row!.id;
});
afterAll(() => database.drop());

/** Collides with others in the first `conflicts` attempts. */
async function collide(conflicts: number, name: string): Promise<number> {
  const transaction = currentTransaction()!;
  await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [id] });
  if (transaction.attempt <= conflicts)
    await database.query(`UPDATE people SET name = 'other' WHERE id = $1`, [id]);
  await transaction.query({ text: 'UPDATE people SET name = $2 WHERE id = $1', values: [id, name] });
  return transaction.attempt;
}
const nameOf = async () =>
  (await database.query<{ name: string }>('SELECT name FROM people WHERE id = $1', [id]))[0]!.name;

const counting = (what: string) =>
  class implements NestInterceptor {
    intercept(_: ExecutionContext, next: CallHandler) {
      count(what);
      return next.handle();
    }
  };
const OuterInterceptor = counting('outer interceptor');
const InnerInterceptor = counting('inner interceptor');
class CountingGuard {
  canActivate() {
    return count('guard') > 0;
  }
}
class CountingPipe implements PipeTransform {
  transform<T>(value: T): T {
    count('pipe');
    return value;
  }
}
const Attempt = createParamDecorator(() => {
  count('parameter decorator');
  return currentTransaction()!.attempt;
});

@Injectable({ scope: Scope.REQUEST })
class OfTheRequest {
  readonly attempts: number[] = [];
  constructor() {
    count('request-scoped provider');
  }
}

@Injectable()
class Inner {
  @Transactional({ isolationLevel: 'REPEATABLE READ' })
  async always(): Promise<number> {
    count('service');
    return collide(100, 'never');
  }
}

@Controller('counted')
@UseGuards(CountingGuard)
@UseInterceptors(
  OuterInterceptor,
  RetryingTransactionInterceptor.with({ isolationLevel: 'REPEATABLE READ' }),
  InnerInterceptor,
)
class CountedController {
  constructor(
    private readonly ofTheRequest: OfTheRequest,
    private readonly inner: Inner,
  ) {}

  @Post()
  async twice(@Body(CountingPipe) body: { n: number }, @Attempt() attempt: number): Promise<object> {
    count('handler');
    body.n++;
    this.ofTheRequest.attempts.push(attempt);
    await collide(1, `n is ${body.n}`);
    return { attempts: this.ofTheRequest.attempts };
  }

  @Post('stacked')
  @Transactional()
  async stacked(): Promise<void> {
    count('handler');
    await this.inner.always();
  }
}

@Controller('all')
class PlainController {
  @Post()
  async handle(@Body() body: { conflicts: number }): Promise<object> {
    return { attempt: await collide(body.conflicts, 'by APP_INTERCEPTOR') };
  }
}

/** Reads the body's stream, as an upload does. */
class ReadsTheBody implements NestInterceptor {
  async intercept(context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const request = context
      .switchToHttp()
      .getRequest<{ raw?: NodeJS.ReadableStream } & NodeJS.ReadableStream>();
    let text = '';
    for await (const piece of request.raw ?? request) text += String(piece);
    count(`read ${text}`);
    return next.handle();
  }
}

@Controller('upload')
class UploadController {
  @Post('outside')
  @Transactional({ isolationLevel: 'REPEATABLE READ' })
  @UseInterceptors(ReadsTheBody)
  async outside(@Req() _: unknown): Promise<object> {
    return { attempt: await collide(1, 'uploaded') };
  }

  @Post('inside')
  @UseInterceptors(ReadsTheBody)
  @Transactional({ isolationLevel: 'REPEATABLE READ' })
  async inside(): Promise<object> {
    return { attempt: await collide(1, 'uploaded') };
  }
}

const post = (host: Host, path: string, body: string, type = 'application/json') =>
  host.request(path, { method: 'POST', body, headers: { 'content-type': type } });

describe.each(ADAPTERS)('on %s, a handler that is repeated', (adapter) => {
  let host: Host;
  beforeAll(async () => {
    host = await startHost({
      database,
      adapter,
      controllers: [CountedController, UploadController],
      providers: [OfTheRequest, Inner],
      prepare: (app) => {
        // Fastify wants to know what it leaves unread.
        const fastify = app.getHttpAdapter().getInstance() as {
          addContentTypeParser?: (type: string, parse: (...args: unknown[]) => void) => void;
        };
        fastify.addContentTypeParser?.('application/octet-stream', (_request, _payload, done) =>
          (done as (error: null) => void)(null),
        );
      },
    });
  });
  afterEach(() => expect(host.borrowed()).toBe(0));
  afterAll(() => host.close());

  it('has pipes, parameter decorators and inner interceptors anew, and the body as it came', async () => {
    const response = await post(host, '/counted', '{"n":0}');
    expect(counts).toEqual({
      'request-scoped provider': 1,
      guard: 1,
      'outer interceptor': 1,
      'inner interceptor': 2,
      pipe: 2,
      'parameter decorator': 2,
      handler: 2,
    });
    expect(await response.json()).toEqual({ attempts: [1, 2] });
    expect(await nameOf()).toBe('n is 1');
  });

  it('runs ten times in all, however many of its class, its method and its services retry', async () => {
    const response = await post(host, '/counted/stacked', '{}');
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({ type: '/problems/transaction-retries-exhausted' });
    expect(counts).toMatchObject({ handler: 10, service: 10 });
  });

  it('is repeated when the body’s stream was read before', async () => {
    const response = await post(host, '/upload/inside', 'text', 'application/octet-stream');
    expect(counts).toEqual({ 'read text': 1 });
    expect(response.status).toBe(503);
    expect(await nameOf()).toBe('other');
  });

  it('is not repeated when the body’s stream is read in the attempt: it could not be read twice', async () => {
    const response = await post(host, '/upload/outside', 'text', 'application/octet-stream');
    expect(response.status).toBe(201);
    expect(counts).toEqual({ 'read text': 1 });
    expect(await nameOf()).toBe('uploaded');
  });
});

it('every handler of an application is repeated by the interceptor as APP_INTERCEPTOR', async () => {
  const host = await startHost({
    database,
    controllers: [PlainController],
    providers: [
      {
        provide: APP_INTERCEPTOR,
        useClass: RetryingTransactionInterceptor.with({ isolationLevel: 'REPEATABLE READ' }),
      },
    ],
  });
  const response = await post(host, '/all', '{"conflicts":3}');
  expect(await response.json()).toEqual({ attempt: 4 });
  await host.close();
});

it('a request whose client has gone is finished all the same, and its connection given back', async () => {
  const host = await startHost({
    database,
    controllers: [CountedController],
    providers: [OfTheRequest, Inner],
  });
  const controller = new AbortController();
  await database.query('BEGIN');
  await database.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [id]);
  const request = host.request('/counted', {
    method: 'POST',
    body: '{"n":0}',
    headers: { 'content-type': 'application/json' },
    signal: controller.signal,
  });
  while (!counts.handler) await new Promise(setImmediate);
  controller.abort();
  await expect(request).rejects.toThrow();
  await database.query('COMMIT');
  await eventually(async () => (await nameOf()) === 'n is 1');
  await eventually(() => host.borrowed() === 0);
  await host.close();
});
