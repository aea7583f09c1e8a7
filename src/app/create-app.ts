import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { HttpException } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, getSchemaPath, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { describeFailure, toProblem } from '../errors/error-responses.js';
import { KafkaTransport } from '../messaging/kafka.transport.js';
import { JsonLogger } from '../operations/json-logger.js';
import { Metrics } from '../operations/metrics.controller.js';
import { ProblemDto } from '../people/people.openapi.js';
import { AppModule, type ServiceSettings } from './app.module.js';
import { answerMethodNotAllowed } from './method-not-allowed.js';

const MEBIBYTE = 1024 * 1024;
/** What one JSON body may be long; streams (NDJSON) have no limit but that of a line. */
const BODY_LIMIT = MEBIBYTE;
const BULK_BODY_LIMIT = 16 * MEBIBYTE;
const REQUEST_ID = /^[\w.:-]{1,128}$/;

/** The hybrid HTTP and Kafka application, with everything set up and nothing started: `listen` and `startAllMicroservices` do that. */
export async function createApp(
  settings: ServiceSettings,
  logger = new JsonLogger(settings.logLevel),
): Promise<NestFastifyApplication> {
  const adapter = new FastifyAdapter({
    bodyLimit: BODY_LIMIT,
    // What the router refuses before there is a route: a malformed URL, a parameter that is too long.
    frameworkErrors: (error: FastifyError, { url }: FastifyRequest, reply: FastifyReply) => {
      const failure = describeFailure(new HttpException(error.message, error.statusCode ?? 400));
      const problem = JSON.stringify(toProblem(failure, url));
      void reply.status(failure.status).type('application/problem+json; charset=utf-8').send(problem);
    },
    genReqId: ({ headers }: IncomingMessage) => {
      const given = headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
    },
  });
  prepareFastify(adapter);
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.forRoot(settings), adapter, {
    logger,
    bodyParser: false,
    abortOnError: false,
  });
  observeRequests(adapter, app.get(Metrics), logger);
  document(app);
  if (settings.kafka) app.connectMicroservice({ strategy: app.get(KafkaTransport) });
  return app;
}

function prepareFastify(adapter: FastifyAdapter): void {
  const fastify = adapter.getInstance();
  // Bodies reach the controllers as bytes: parsing here would change numbers and refuse `__proto__`.
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) =>
    done(null, body),
  );
  fastify.addHook('onRoute', (route) => {
    if (route.url === '/people/bulk') route.bodyLimit = BULK_BODY_LIMIT;
  });
  fastify.addHook('onRequest', (request, reply, done) => {
    reply.header('X-Request-Id', request.id);
    done();
  });
  answerMethodNotAllowed(fastify);
}

function observeRequests(adapter: FastifyAdapter, metrics: Metrics, logger: JsonLogger): void {
  const fastify = adapter.getInstance();
  fastify.addHook('onResponse', (request, reply, done) => {
    const { method } = request;
    const route = request.routeOptions.url ?? 'none';
    metrics.observeRequest(method, route, reply.statusCode, reply.elapsedTime / 1000);
    const ms = Math.round(reply.elapsedTime * 10) / 10;
    logger.log({ msg: 'request', requestId: request.id, method, route, status: reply.statusCode, ms });
    done();
  });
}

function document(app: NestFastifyApplication): void {
  const config = new DocumentBuilder()
    .setOpenAPIVersion('3.1.0')
    .setTitle('People')
    .setDescription(
      'People over HTTP; every operation is a transaction that retries. Errors are RFC 9457 problems.',
    )
    .setVersion('1')
    .addBearerAuth()
    .build();
  SwaggerModule.setup('docs', app, () => withRefusals(SwaggerModule.createDocument(app, config)));
}

/** Adds the guard's answers to every operation that needs a token: the controllers don't know of it. */
function withRefusals(document: OpenAPIObject): OpenAPIObject {
  const refusal = (description: string) => ({
    description,
    content: { 'application/problem+json': { schema: { $ref: getSchemaPath(ProblemDto) } } },
  });
  for (const { get, post, patch, delete: remove } of Object.values(document.paths)) {
    for (const operation of [get, post, patch, remove]) {
      if (!operation?.security) continue;
      operation.responses['401'] = refusal('No bearer token, or one that is not valid (with `AUTH=jwt`).');
      operation.responses['403'] = refusal('The bearer token lacks the scope (with `AUTH=jwt`).');
    }
  }
  return document;
}
