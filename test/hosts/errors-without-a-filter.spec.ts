import { type ArgumentsHost, Catch, type ExceptionFilter, type INestApplication } from '@nestjs/common';
import { APP_FILTER, BaseExceptionFilter, HttpAdapterHost } from '@nestjs/core';
import { ClientProxyFactory, Transport } from '@nestjs/microservices';
import type { AddressInfo, Server } from 'node:net';
import { lastValueFrom } from 'rxjs';
import { ProblemDetailsFilter } from '../../src/errors/error-responses.js';
import { duringTests } from '../support/during-tests.js';
import { createDatabase } from '../support/test-database.js';
import { PLATFORMS } from '../support/transactions-host.js';
import { type HttpHost, type HttpHostOptions, startHttpHost } from './http-host.js';

@Catch()
class EnvelopeFilter implements ExceptionFilter {
  constructor(private readonly adapterHost: HttpAdapterHost) {}

  catch(error: Error, host: ArgumentsHost): void {
    const response: unknown = host.switchToHttp().getResponse();
    this.adapterHost.httpAdapter.reply(response, { failed: error.name }, 418);
  }
}

/** As many hosts have one, which logs and leaves the answer to Nest. */
@Catch()
class LoggingFilter extends BaseExceptionFilter {}

const database = duringTests(() => createDatabase());

it('a message handler of an application that shares its configuration with a microservice tells a failure as what it is', async () => {
  const host = await startHttpHost('express', database.url);
  const { app } = host;
  const options = { host: '127.0.0.1', port: 0 };
  const tcp = app.connectMicroservice({ transport: Transport.TCP, options }, { inheritAppConfig: true });
  await app.startAllMicroservices();
  const { port } = tcp.unwrap<Server>().address() as AddressInfo;
  const client = ClientProxyFactory.create({ transport: Transport.TCP, options: { port } });
  const failure = await lastValueFrom(client.send<unknown>('host.fails', 'lock')).catch(
    (error: unknown) => error,
  );
  expect(failure).toMatchObject({ code: 'LOCK_TIMEOUT', retryable: true });
  await client.close();
  await host.close();
});

describe.each(PLATFORMS)('a host on %s', (platform) => {
  let host: HttpHost | undefined;
  const start = async (options?: HttpHostOptions) =>
    (host = await startHttpHost(platform, database.url, options));
  afterEach(() => host?.close());
  const withFilter = (useClass: new (adapterHost: HttpAdapterHost) => unknown) => ({
    providers: [{ provide: APP_FILTER, inject: [HttpAdapterHost], useFactory: (adapterHost: HttpAdapterHost) => new useClass(adapterHost) }], // prettier-ignore
  });

  // @trap a conflict that was answered as an internal error
  it('answers what its @Transactional route could not do with its status and Retry-After, and says no more than is to be told', async () => {
    const { request, send } = await start();
    const answers = await Promise.all(
      ['conflict', 'lock', 'full', 'unknown'].map(async (how) => {
        const answer = await request(`/host/fails/${how}`, { method: 'POST' });
        return [answer.status, answer.headers.get('retry-after'), await answer.json()];
      }),
    );
    const unavailable = { statusCode: 503, error: 'Service Unavailable' };
    expect(answers).toEqual([
      [503, '1', { ...unavailable, message: 'The operation collided with others in each of its 2 attempts; nothing was changed, try again.' }], // prettier-ignore
      [503, '1', { ...unavailable, message: 'What the operation works on is locked by others; nothing was changed, try again.' }], // prettier-ignore
      [503, '1', { ...unavailable, message: 'The database cannot do this at the moment (53100); nothing was changed, try again.' }], // prettier-ignore
      [500, null, { statusCode: 500, error: 'Internal Server Error', message: expect.stringContaining('is unknown') as string }], // prettier-ignore
    ]);
    // The routes of people have their own filter.
    expect((await send('POST', '/people', '{}')).headers.get('content-type')).toContain('problem+json');
  });

  it.each([
    ['APP_FILTER', withFilter(EnvelopeFilter)],
    [
      'useGlobalFilters',
      { prepare: (app) => app.useGlobalFilters(new EnvelopeFilter(app.get(HttpAdapterHost))) },
    ],
  ] satisfies [string, HttpHostOptions][])(
    'has the last word with a filter of its own by %s',
    async (_, options) => {
      const answer = await (await start(options)).request('/host/fails/conflict', { method: 'POST' });
      expect([answer.status, await answer.json()]).toEqual([
        418,
        { failed: 'TransactionRetriesExhaustedError' },
      ]);
    },
  );

  it('answers with the status where its own filter leaves the answer to Nest, and with the problem by ProblemDetailsFilter', async () => {
    const prepare = (app: INestApplication) =>
      void app.useGlobalFilters(new LoggingFilter(app.getHttpAdapter()));
    const left = await (await start({ prepare })).request('/host/fails/conflict', { method: 'POST' });
    expect([left.status, await left.json()]).toMatchObject([503, { message: expect.stringContaining('try again') as string }]); // prettier-ignore
    await host!.close();
    await start(withFilter(ProblemDetailsFilter));
    const problem = await host!.request('/host/fails/conflict', { method: 'POST' });
    expect([problem.headers.get('retry-after'), await problem.json()]).toMatchObject(['1', { type: '/problems/transaction-retries-exhausted' }]); // prettier-ignore
  });
});
