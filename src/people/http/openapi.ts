import { applyDecorators } from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiConsumes,
  ApiExtraModels,
  ApiHeader,
  ApiOperation,
  ApiParam,
  ApiProduces,
  ApiQuery,
  ApiResponse,
  ApiTags,
} from '@nestjs/swagger';
import { unchanged } from '../../errors/application-error.js';
import { problem, ProblemDto } from '../../errors/problem.dto.js';
import { NDJSON } from '../../json/ndjson.js';
import { CreatePersonDto, InsertedDto, PeoplePageDto, PersonDto, UpdatePersonDto } from '../person.dto.js';

const INVALID = problem(400, 'Malformed JSON, or a field that fails validation; `errors` names each.');
const NOT_FOUND = problem(404, 'No person has this id.');
const CHANGED = problem(412, unchanged('The person is not the version named in `If-Match`'));
const OF_A_BODY = applyDecorators(
  problem(408, unchanged('The body came too slowly')),
  problem(413, 'The body is larger than this service takes.'),
  problem(415, 'A content type, encoding or charset this route does not take.'),
);
const ID = ApiParam({ name: 'id', format: 'uuid', example: '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f' });
const IF_MATCH = ApiHeader({
  name: 'If-Match',
  required: false,
  description: 'The ETag the change is meant for.',
});
const ETAG = {
  ETag: {
    description: 'The version of the person.',
    schema: { type: 'string' as const, example: '"742.0.1"' },
  },
};

export const DocumentPeople = () =>
  applyDecorators(
    ApiTags('people'),
    ApiBearerAuth(),
    ApiExtraModels(ProblemDto),
    problem(
      503,
      unchanged(
        'Retries or connections exhausted, or the database away',
        'try again after `Retry-After` seconds',
      ),
    ),
  );

export const DocumentCreate = () =>
  applyDecorators(
    ApiOperation({ summary: 'Create a person' }),
    ApiBody({ type: CreatePersonDto }),
    ApiHeader({
      name: 'Idempotency-Key',
      required: false,
      description: 'Makes repeating the request harmless.',
    }),
    ApiResponse({
      status: 201,
      type: PersonDto,
      headers: { ...ETAG, Location: { description: 'The route of the person.', schema: { type: 'string' } } },
    }),
    ApiResponse({
      status: 200,
      type: PersonDto,
      headers: ETAG,
      description: 'The same person was there already.',
    }),
    INVALID,
    problem(409, 'Another person has this id.'),
    OF_A_BODY,
  );

export const DocumentCreateMany = () =>
  applyDecorators(
    ApiOperation({
      summary: 'Create many people, all or none',
      description: `An array in one prepared statement, or \`${NDJSON}\`, one person a line, streamed through COPY.`,
    }),
    ApiConsumes('application/json', NDJSON),
    ApiQuery({
      name: 'ids',
      required: false,
      description: 'Whether the ids are told, for an array.',
      schema: { type: 'boolean', default: false },
    }),
    ApiBody({ type: [CreatePersonDto] }),
    ApiResponse({
      status: 201,
      type: InsertedDto,
      description: '`ids` in the order given, where they were asked for.',
    }),
    INVALID,
    problem(409, 'An id exists already or stands twice; nothing was stored.'),
    OF_A_BODY,
  );

export const DocumentGet = () =>
  applyDecorators(
    ApiOperation({ summary: 'Read a person' }),
    ID,
    ApiHeader({ name: 'If-None-Match', required: false, description: 'An ETag the caller has already.' }),
    ApiResponse({ status: 200, type: PersonDto, headers: ETAG }),
    ApiResponse({ status: 304, description: 'The caller has this version.' }),
    INVALID,
    NOT_FOUND,
  );

export const DocumentFind = () =>
  applyDecorators(
    ApiOperation({
      summary: 'Find people by name',
      description: `A page ordered by id; with \`Accept: ${NDJSON}\` all of them, one a line.`,
    }),
    ApiQuery({ name: 'name', example: 'Ada Lovelace' }),
    ApiQuery({
      name: 'limit',
      required: false,
      schema: { type: 'integer', minimum: 1, maximum: 1000, default: 100 },
    }),
    ApiQuery({ name: 'cursor', required: false, description: '`next` of the page before.' }),
    ApiProduces('application/json', NDJSON),
    ApiResponse({ status: 200, type: PeoplePageDto }),
    INVALID,
  );

export const DocumentUpdate = () =>
  applyDecorators(
    ApiOperation({
      summary: 'Change a person',
      description:
        '`data` replaces what is stored, null clears it; `application/merge-patch+json` merges it (RFC 7396).',
    }),
    ID,
    IF_MATCH,
    ApiConsumes('application/json', 'application/merge-patch+json'),
    ApiBody({ type: UpdatePersonDto }),
    ApiResponse({ status: 200, type: PersonDto, headers: ETAG }),
    ApiResponse({
      status: 204,
      headers: ETAG,
      description: 'Changed, for a caller who may write and not read (with `AUTH=jwt`).',
    }),
    INVALID,
    NOT_FOUND,
    CHANGED,
    OF_A_BODY,
  );

export const DocumentRemove = () =>
  applyDecorators(
    ApiOperation({ summary: 'Delete a person' }),
    ID,
    IF_MATCH,
    ApiResponse({ status: 204, description: 'Deleted.' }),
    INVALID,
    NOT_FOUND,
    problem(409, unchanged('Rows of another table refer to the person')),
    CHANGED,
  );
