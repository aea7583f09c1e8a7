import { applyDecorators, HttpCode, type Type, UseFilters, UseGuards, UseInterceptors } from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiExtraModels,
  ApiOperation,
  ApiProperty,
  ApiQuery,
  ApiResponse,
  ApiTags,
} from '@nestjs/swagger';
import { Length, ValidateBy } from 'class-validator';
import { ProblemDetailsFilter } from '../errors/error-responses.js';
import { problem, ProblemDto } from '../errors/problem.dto.js';
import { NeedsScope, OperatorGuard } from './operator-access.js';
import { OperatorBodyInterceptor } from './operator-input.js';

/** For a controller whose routes are for people on call. @param tag what the documentation lists them under */
export const OperatorRoutes = (tag: string) =>
  applyDecorators(
    UseFilters(ProblemDetailsFilter),
    UseGuards(OperatorGuard),
    ApiTags(tag),
    ApiBearerAuth(),
    ApiExtraModels(ProblemDto),
  );

/** What the documentation says of a route. */
export interface RouteDocumentation {
  summary: string;
  /** Of the answer. */
  type: Type;
  description: string;
  /** Parameters of the query. */
  query?: Record<string, string>;
}

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
      description: 'Needs the scope `people:operate` (with `AUTH=jwt`); kept with who did it.',
    }),
    ApiBody({ type: body }),
    ApiResponse({ status: 200, type, description }),
    problem(400, 'Malformed JSON, or a field that is wrong; `errors` names each.'),
    problem(408, 'The body came too slowly.'),
    problem(413, 'The body is larger than 4 MiB.'),
    problem(415, 'Another content type than `application/json`.'),
  );

const isStorable = (value: unknown) =>
  typeof value === 'string' && !value.includes('\0') && value.isWellFormed();

/** Validates a text that PostgreSQL can store. */
export const IsStorable = () =>
  ValidateBy({
    name: 'isStorable',
    validator: {
      validate: isStorable,
      defaultMessage: () => '$property must be a text without NUL and without lone surrogates',
    },
  });

/** Why something is done; it is kept with who did it. */
export class ReasonDto {
  /** For whoever reads of it later. */
  @ApiProperty({
    description: 'Kept with who did it.',
    example: 'INC-4711: the field was renamed',
  })
  @IsStorable()
  @Length(1, 1000)
  reason!: string;
}
