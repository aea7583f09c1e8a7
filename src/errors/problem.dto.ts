import { ApiProperty, ApiResponse, getSchemaPath } from '@nestjs/swagger';

/** The body of a problem (RFC 9457); what every error is answered with. */
export class ProblemDto {
  @ApiProperty({ example: '/problems/invalid-input' })
  type!: string;
  @ApiProperty({ example: 'Invalid input' })
  title!: string;
  @ApiProperty({ example: 400 })
  status!: number;
  @ApiProperty({ example: 'name must be a non-empty string without NUL and without lone surrogates.' })
  detail!: string;
  @ApiProperty({ example: '/people' })
  instance!: string;
  @ApiProperty({
    required: false,
    type: 'array',
    items: { type: 'object', properties: { pointer: { type: 'string' }, detail: { type: 'string' } } },
    example: [
      { pointer: '#/name', detail: 'must be a non-empty string without NUL and without lone surrogates' },
    ],
  })
  errors?: { pointer: string; detail: string }[];
}

/** Documents that a route answers with a problem. */
export const problem = (status: number, description: string) =>
  ApiResponse({
    status,
    description,
    content: { 'application/problem+json': { schema: { $ref: getSchemaPath(ProblemDto) } } },
  });
