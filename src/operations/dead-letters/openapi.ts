import { applyDecorators } from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiExtraModels,
  ApiOperation,
  ApiQuery,
  ApiResponse,
  ApiTags,
} from '@nestjs/swagger';
import type { Type } from '@nestjs/common';
import { problem, ProblemDto } from '../../errors/problem.dto.js';

/** For a controller of these routes. */
export const DocumentMessages = () =>
  applyDecorators(
    ApiTags('messages'),
    ApiBearerAuth(),
    ApiExtraModels(ProblemDto),
    problem(503, 'Connections exhausted, or the database away.'),
  );

/** A route that shows something; its caller needs `people:read`. */
export const DocumentLook = (summary: string, description: string, parameters: Record<string, string> = {}) =>
  applyDecorators(
    ...Object.entries(parameters).map(([name, text]) =>
      ApiQuery({ name, required: false, description: text }),
    ),
    ApiOperation({ summary, description: 'Needs the scope `people:read` (with `AUTH=jwt`).' }),
    ApiResponse({ status: 200, description }),
    problem(400, 'A parameter that is wrong, or unknown; `errors` names each.'),
  );

/** A route that does something, and keeps who did it and why; its caller needs `people:operate`. */
export const DocumentAct = (summary: string, description: string, body: Type) =>
  applyDecorators(
    ApiOperation({
      summary,
      description: 'Needs the scope `people:operate` (with `AUTH=jwt`); kept in the audit.',
    }),
    ApiBody({ type: body }),
    ApiResponse({ status: 200, description }),
    problem(400, 'Malformed JSON, or a field that is wrong; `errors` names each.'),
    problem(408, 'The body came too slowly.'),
    problem(413, 'The body is larger than 4 MiB.'),
    problem(415, 'Another content type than `application/json`.'),
  );

export const NOT_FOUND = problem(404, 'There is none.');
export const SETTLED = problem(409, 'Somebody else was first: it is replayed or discarded already.');
export const RUNNING = problem(409, 'Another window is being replayed.');
