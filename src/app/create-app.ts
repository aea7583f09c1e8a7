import { randomUUID } from 'node:crypto';
import type { IncomingMessage, RequestListener } from 'node:http';
import { HttpException } from '@nestjs/common';
import { HttpAdapterHost, NestFactory } from '@nestjs/core';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { DataSource } from 'typeorm';
import { migratesLater } from '../database/table-name.js';
import { describeFailure, failuresOf, operationOf, toProblem } from '../errors/error-responses.js';
import type { FailureLog } from '../errors/failure-log.js';
import { KafkaTransport } from '../messaging/kafka.transport.js';
import { Stopping } from '../operations/health/stopping.js';
import { JsonLogger } from '../operations/json-logger.js';
import { standardOutput } from '../operations/logs/bounded-output.js';
import { Metrics } from '../operations/metrics/metrics.js';
import { isRequestId } from '../tracing/trace-context.js';
import { setAnswerHeaders } from './http/answer-headers.js';
import { AppModule, type ServiceSettings } from './app.module.js';
import { tokenVerifier } from './http/bearer-tokens.js';
import { serveDocumentation } from './http/documentation.js';
import { type AuthSettings, LOOPBACK } from './settings.js';
import { HttpFront } from './http/front.js';
import { answerMethodNotAllowed } from './http/method-not-allowed.js';
import { guardOperations, openManagementPort } from './http/operations-access.js';
import { refuseAmbiguous } from './http/request-rules.js';
import { traceRequests } from './http/request-traces.js';

/** The hybrid HTTP and Kafka application, with everything set up and nothing started: `listen` and `startAllMicroservices` do that. */
export async function createApp(
  settings: ServiceSettings,
  logger = new JsonLogger(settings.logLevel, standardOutput(settings.logBufferBytes)),
): Promise<NestFastifyApplication> {
  const { http, auth } = settings;
  const front = new HttpFront(http);
  const adapter = new FastifyAdapter({
    serverFactory: (handle: RequestListener) => front.server(handle),
    // The front's server has answered by then.
    clientErrorHandler: () => undefined,
    // What the router refuses before there is a route, and so before any hook: a malformed URL, a parameter that is too long.
    frameworkErrors: (error: FastifyError, { id, raw, url }: FastifyRequest, reply: FastifyReply) => {
      const failure = describeFailure(new HttpException(error.message, error.statusCode ?? 400));
      const problem = JSON.stringify(toProblem(failure, url));
      if (!raw.complete) reply.header('Connection', 'close');
      void reply
        .status(failure.status)
        .headers({ 'X-Request-Id': id, 'X-Content-Type-Options': 'nosniff', 'Cache-Control': 'no-store' })
        .type('application/problem+json; charset=utf-8')
        .send(problem);
    },
    genReqId: ({ headers }: IncomingMessage) => {
      const given = headers['x-request-id'];
      return isRequestId(given) ? given : randomUUID();
    },
  });
  const fastify = adapter.getInstance<FastifyInstance>();
  traceRequests(fastify, (settings.kafka !== undefined && settings.events) || settings.statementComments);
  prepareFastify(fastify);
  refuseAmbiguous(fastify, { names: http.allowedHosts });
  guardOperations(fastify, {
    verify: tokenVerifier(auth),
    hasManagementPort: http.management !== undefined,
    isOpenToStrangers:
      auth.method === 'none' &&
      LOOPBACK.test(http.host) &&
      !LOOPBACK.test(http.management?.host ?? http.host),
  });
  if (http.management) openManagementPort(fastify, front, http.management);
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.forRoot(settings, logger), adapter, {
    logger,
    bodyParser: false,
    abortOnError: false,
  });
  migratesLater(app.get(DataSource));
  warnOfForeignTokens(auth, logger);
  const stopping = app.get(Stopping);
  setAnswerHeaders(fastify, () => stopping.hasBegun);
  observeRequests(adapter, app.get(Metrics), failuresOf(app.get(HttpAdapterHost)), logger);
  serveDocumentation(app);
  app.get(Metrics).showLog(logger);
  if (settings.kafka) {
    const transport = app.get(KafkaTransport);
    app.get(Metrics).showTransport(transport);
    app.connectMicroservice({ strategy: transport });
  }
  return app;
}

/** An issuer of many services gives tokens that are meant for the others. */
function warnOfForeignTokens(auth: AuthSettings, logger: JsonLogger): void {
  if (auth.method === 'none') return;
  const missing = [...(auth.issuer ? [] : ['AUTH_ISSUER']), ...(auth.audience ? [] : ['AUTH_AUDIENCE'])];
  if (missing.length > 0)
    logger.warn({
      msg: `Tokens that were issued for other services are taken too: set ${missing.join(' and ')}.`,
    });
}

function prepareFastify(fastify: FastifyInstance): void {
  // Bodies are read behind the guards, and as bytes: parsing here would change numbers and refuse `__proto__`.
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser('application/json', (_request, body, done) => done(null, body));
  answerMethodNotAllowed(fastify);
}

const isOfOperations = (route: string) => route === '/metrics' || route.startsWith('/health/');

function observeRequests(
  adapter: FastifyAdapter,
  metrics: Metrics,
  failures: FailureLog,
  logger: JsonLogger,
): void {
  const fastify = adapter.getInstance();
  fastify.addHook('onResponse', (request, reply, done) => {
    const { method } = request;
    const route = request.routeOptions.url ?? 'none';
    const { elapsedTime, statusCode: status } = reply;
    metrics.observeRequest(method, route, status, elapsedTime / 1000);
    const ms = Math.round(elapsedTime * 10) / 10;
    const line = { msg: 'request', requestId: request.id, method, route, status, ms };
    // Whoever probes and scrapes comes every few seconds, for ever.
    if (isOfOperations(route)) logger.debug(line);
    else logger.log(line);
    if (failures.isFailing && status < 400) failures.succeeded(operationOf(request));
    done();
  });
}
