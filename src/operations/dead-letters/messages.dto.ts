import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsIn, IsInt, IsISO8601, IsOptional, Length, Matches, Max, Min, ValidateBy } from 'class-validator';
import type {
  DeadLetterState,
  ShownBytes,
  ShownHeader,
} from '../../messaging/dead-letters/letter-details.js';
import { IsStorable, ReasonDto } from '../operator-routes.js';

const STATES = ['dead', 'parked', 'replayed', 'discarded'] as const satisfies readonly DeadLetterState[];
const HEADERS_AT_MOST = 1000;
const MOST_AT_ONCE = 200;

const rule = (name: string, expected: string, validate: (value: unknown) => boolean) =>
  ValidateBy({ name, validator: { validate, defaultMessage: () => `$property must be ${expected}` } });
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isBase64 = (value: unknown) =>
  typeof value === 'string' && Buffer.from(value, 'base64').toString('base64') === value;
const isBytes = (value: unknown) =>
  value === null ||
  (isObject(value) &&
    Object.keys(value).length === 1 &&
    ((typeof value.text === 'string' && value.text.isWellFormed()) || isBase64(value.base64)));
const isHeader = (header: unknown) =>
  isObject(header) &&
  Object.keys(header).every((key) => ['name', 'nameBase64', 'value'].includes(key)) &&
  typeof header.name === 'string' &&
  header.name.isWellFormed() &&
  (header.nameBase64 === undefined || isBase64(header.nameBase64)) &&
  isBytes(header.value);
const IsBytes = () => rule('isBytes', '{"text": …}, {"base64": …} or null', isBytes);
const IsHeaders = () =>
  rule(
    'isHeaders',
    `a list of at most ${HEADERS_AT_MOST} headers {"name": …, "value": {"text": …}, {"base64": …} or null}`,
    (value) => Array.isArray(value) && value.length <= HEADERS_AT_MOST && value.every(isHeader),
  );
/** As PostgreSQL counts rows. */
const IsSeq = () => Matches(/^\d{1,18}$/, { message: '$property must be the number of a row' });
const IsHash = () =>
  Matches(/^[\da-f]{8}([\da-f]{56})?$/, {
    message: '$property must be the hash that the list of keys names',
  });

/** What is to be handled in place of a dead letter. */
export class CorrectionDto extends ReasonDto {
  @ApiProperty({
    description: 'The value: `{"text": …}`, or `{"base64": …}` for bytes that are no UTF-8; null for none.',
    example: { text: '{"name":"Ada Lovelace"}' },
  })
  @IsBytes()
  value!: ShownBytes | null;

  @ApiPropertyOptional({
    description:
      'All headers, in their order; left out: those that came. `message-id` is given anew in any case.',
    example: [{ name: 'people-operation', value: { text: 'create' } }],
  })
  @IsOptional()
  @IsHeaders()
  headers?: ShownHeader[];
}

/** A key whose messages are to be handled. */
export class ReleaseKeyDto extends ReasonDto {
  @ApiProperty({ example: 'people.commands' })
  @IsStorable()
  @Length(1, 249)
  topic!: string;

  @ApiProperty({ description: '`hash` of the list.', example: '00000003' })
  @IsHash()
  hash!: string;
}

/** A page of a list. */
class PageDto {
  @IsOptional()
  @IsInt()
  @Min(1)
  @Max(MOST_AT_ONCE)
  limit = 50;
}

/** Which dead letters. */
export class FindLettersDto extends PageDto {
  @IsOptional()
  @IsStorable()
  topic?: string;

  @IsOptional()
  @IsStorable()
  code?: string;

  @IsOptional()
  @IsStorable()
  key?: string;

  @IsOptional()
  @IsIn(STATES)
  state?: DeadLetterState;

  @IsSeq()
  after = '0';
}

/** Which keys. */
export class FindKeysDto extends PageDto {
  @IsOptional()
  @IsStorable()
  topic?: string;

  @IsOptional()
  @IsStorable()
  after?: string;
}

/** Which rows of the audit. */
export class FindAuditDto extends PageDto {
  @IsOptional()
  @IsSeq()
  before?: string;
}

/** The messages of a topic that are to be handled, where they were not. */
export class ReplayWindowDto extends ReasonDto {
  @ApiProperty({ example: 'people.commands' })
  @IsStorable()
  @Length(1, 249)
  topic!: string;

  @ApiProperty({
    description: 'From this time on, by the timestamps of the records.',
    example: '2026-01-30T22:00:00Z',
  })
  @IsISO8601({ strict: true })
  from!: string;

  @ApiProperty({ description: 'Before this time.', example: '2026-01-30T23:00:00Z' })
  @IsISO8601({ strict: true })
  to!: string;
}
