import { applyDecorators, HttpCode, type Type, UseInterceptors } from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiExtraModels,
  ApiOperation,
  ApiQuery,
  ApiResponse,
  ApiTags,
} from '@nestjs/swagger';
import { problem, ProblemDto } from '../../errors/problem.dto.js';
import { NeedsScope } from './access.js';
import { OperatorBodyInterceptor } from './input.js';

/** What the documentation says of a route. */
export interface RouteDocumentation {
  summary: string;
  /** Of the answer. */
  type: Type;
  description: string;
  /** Parameters of the query. */
  query?: Record<string, string>;
}

/** For a controller of these routes. */
export const DocumentMessages = () =>
  applyDecorators(
    ApiTags('messages'),
    ApiBearerAuth(),
    ApiExtraModels(ProblemDto),
    problem(503, 'Connections exhausted, or the database away.'),
  );

/** A route that shows something to who has `people:read`. */
export const Shows = ({ summary, type, description, query = {} }: RouteDocumentation) =>
  applyDecorators(
    NeedsScope('people:read'),
    ...Object.entries(query).map(([name, text]) => ApiQuery({ name, required: false, description: text })),
    ApiOperation({ summary, description: 'Needs the scope `people:read` (with `AUTH=jwt`).' }),
    ApiResponse({ status: 200, type, description }),
    problem(400, 'A parameter that is wrong, or unknown; `errors` names each.'),
  );

/** A route by which who has `people:operate` does something, which is kept with who it was and why. */
export const Acts = ({ summary, type, description, body }: RouteDocumentation & { body: Type }) =>
  applyDecorators(
    HttpCode(200),
    NeedsScope('people:operate'),
    UseInterceptors(OperatorBodyInterceptor),
    ApiOperation({
      summary,
      description: 'Needs the scope `people:operate` (with `AUTH=jwt`); kept in the audit.',
    }),
    ApiBody({ type: body }),
    ApiResponse({ status: 200, type, description }),
    problem(400, 'Malformed JSON, or a field that is wrong; `errors` names each.'),
    problem(408, 'The body came too slowly.'),
    problem(413, 'The body is larger than 4 MiB.'),
    problem(415, 'Another content type than `application/json`.'),
  );

export const NOT_FOUND = problem(404, 'There is none.');
export const SETTLED = problem(409, 'Somebody else was first: it is replayed or discarded already.');
export const RUNNING = problem(409, 'Another window is being replayed.');
