import {
  type CallHandler,
  Controller,
  type ExecutionContext,
  type INestApplication,
  type NestInterceptor,
  Post,
  Req,
  UseInterceptors,
} from '@nestjs/common';
import type { FastifyInstance } from 'fastify';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { barrier, eventually } from '../support/barrier.js';
import { poolOf } from '../support/people-app.js';
import { PLATFORMS, startTransactionsHost, type TransactionsHost } from '../support/transactions-host.js';

let host: TransactionsHost;
const detailOf = async (response: Response) => ((await response.json()) as { detail: string }).detail;
let uploads: string[] = [];

type UploadRequest = IncomingMessage & { raw?: IncomingMessage; upload?: string };
const streamOf = (request: UploadRequest): IncomingMessage => request.raw ?? request;

/** Reads the body as those for files do: from the stream, once. */
class ReadsUpload implements NestInterceptor {
  async intercept(context: ExecutionContext, next: CallHandler) {
    const request = context.switchToHttp().getRequest<UploadRequest>();
    const pieces: Buffer[] = [];
    for await (const piece of streamOf(request)) pieces.push(piece as Buffer);
    request.upload = Buffer.concat(pieces).toString();
    return next.handle();
  }
}

const store = async ({ upload }: UploadRequest) => {
  uploads.push(upload!);
  await host.count(upload!);
  await host.conflict(2);
};

/** Resolves when the handler is in mid transaction; the handler goes on when the client has gone. */
let handlerRuns: () => Promise<void>;
let attempts: number[] = [];

@Controller()
class UploadController {
  @Post('read-before')
  @UseInterceptors(ReadsUpload, RetryingTransactionInterceptor)
  async readBefore(@Req() request: UploadRequest) {
    await store(request);
  }

  @Post('read-inside')
  @UseInterceptors(RetryingTransactionInterceptor, ReadsUpload)
  async readInside(@Req() request: UploadRequest) {
    await store(request);
  }

  @Post('read-by-nobody')
  @Transactional()
  async readByNobody() {
    await host.count('by nobody');
    await host.conflict(2);
  }

  @Post('abandoned')
  @Transactional()
  async abandoned(@Req() request: UploadRequest) {
    const { attempt } = currentTransaction()!;
    attempts.push(attempt);
    await host.count('abandoned');
    if (attempt === 1) {
      const gone = once(streamOf(request).socket, 'close');
      await handlerRuns();
      await gone;
    }
    await host.conflict(1);
  }
}

/** Fastify takes no body that it has no parser for; this one leaves the stream to whoever wants it. */
const leaveBodiesAlone = (app: INestApplication) => {
  const adapter = app.getHttpAdapter();
  if (adapter.getType() !== 'fastify') return;
  const leave = (_: unknown, __: unknown, done: (error: null) => void) => done(null);
  (adapter.getInstance() as FastifyInstance).addContentTypeParser('application/octet-stream', leave);
};

describe.each(PLATFORMS)('on %s', (platform) => {
  beforeAll(async () => {
    host = await startTransactionsHost({
      platform,
      controllers: [UploadController],
      prepare: leaveBodiesAlone,
    });
  });
  beforeEach(() => {
    uploads = [];
    attempts = [];
  });
  afterAll(() => host.close());

  const upload = (path: string, body: string) =>
    host.request(path, { method: 'POST', body, headers: { 'content-type': 'application/octet-stream' } });

  it('a body whose stream was read before the unit of work is the same for every attempt', async () => {
    expect((await upload('/read-before', 'a photo')).status).toBe(201);
    expect(uploads).toEqual(['a photo', 'a photo', 'a photo']);
    expect(await host.committed('a photo')).toBe(1);
  });

  it('a body whose stream is read inside of the unit of work is there once, so there is one attempt', async () => {
    const response = await upload('/read-inside', 'a film');
    expect(uploads).toEqual(['a film']);
    expect([response.status, await detailOf(response)]).toEqual([
      503,
      'The operation collided with others in its only attempt; nothing was changed, try again.',
    ]);
    expect(await host.committed('a film')).toBeUndefined();
  });

  it.each([
    ['that nobody reads', 'left alone'],
    ['that is empty', ''],
  ])('a body %s is no reason not to try again', async (_, body) => {
    await host.database.query(`DELETE FROM counters WHERE name = 'by nobody'`);
    expect((await upload('/read-by-nobody', body)).status).toBe(201);
    expect(await host.committed('by nobody')).toBe(1);
  });

  it('a client that goes away in mid transaction leaves neither half of it nor a borrowed connection', async () => {
    handlerRuns = barrier(2);
    const client = request(`${host.url}/abandoned`, { method: 'POST', agent: false }).end();
    const hungUp = once(client, 'error');
    await handlerRuns();
    client.destroy();
    await hungUp;
    expect(await eventually(() => host.committed('abandoned'))).toBe(1);
    expect(attempts).toEqual([1, 2]);
    await eventually(() => poolOf(host.dataSource).borrowed === 0);
  });
});
