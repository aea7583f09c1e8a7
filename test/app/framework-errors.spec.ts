import 'reflect-metadata';
import { HttpException } from '@nestjs/common';
import { errorCodes } from 'fastify';
import { createRequire } from 'node:module';
import { InvalidInputError } from '../../src/errors/application-error.js';
import { describeFailure } from '../../src/errors/error-responses.js';
import { asHttpException } from '../../src/errors/framework-errors.js';
import { PeopleHttpController } from '../../src/people/http/controller.js';

const createError = createRequire(import.meta.url)('http-errors') as (
  status: number,
  text: string,
  properties?: object,
) => Error;
const answerTo = (error: unknown) => describeFailure(asHttpException(error));

// Nest 12 hands these to a filter as its own; Nest 11 as they are.
it.each([
  ['a body that is too long for Fastify', new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE(), 413],
  ['a type that Fastify has no parser for', new errorCodes.FST_ERR_CTP_INVALID_MEDIA_TYPE('text/plain'), 415],
  ['a body that is too long for Express', createError(413, 'request entity too large'), 413],
  ['what Nest has made of it already', new HttpException('too long', 413), 413],
])('%s is answered with its status', (_, error, status) => {
  expect(answerTo(error)).toMatchObject({ status, retryable: false });
});

it('an error of ours keeps its type and its fields', () => {
  const fields = [{ pointer: '#/name', detail: 'must be text' }];
  expect(answerTo(new InvalidInputError('The name is no text.', fields))).toMatchObject({
    type: 'invalid-input',
    errors: fields,
  });
});

it('a text that is not to be shown is none of the answer', () => {
  expect(answerTo(createError(403, 'of /etc/secrets', { expose: false }))).toMatchObject({
    status: 403,
    detail: 'Forbidden',
  });
});

it.each([
  ['a fault of the server', new errorCodes.FST_ERR_CTP_INVALID_HANDLER()],
  ['a fault of what is behind a parser', createError(500, 'of /etc/secrets')],
  ['an error of a client library that has a status', Object.assign(new Error('secret'), { statusCode: 404 })],
  ['no error at all', { statusCode: 404, status: 404, expose: true, message: 'secret' }],
])('%s says nothing of itself', (_, error) => {
  expect(answerTo(error)).toMatchObject({ status: 500, type: 'internal-error' });
});

it.each(['create', 'update'] as const)(
  'a host’s pipe that validates what decorators give finds no class for the bytes that %s takes',
  (handler) => {
    const types = Reflect.getMetadata(
      'design:paramtypes',
      PeopleHttpController.prototype,
      handler,
    ) as unknown[];
    expect(types).not.toContain(Uint8Array);
    expect(types.length).toBeGreaterThan(2);
  },
);
