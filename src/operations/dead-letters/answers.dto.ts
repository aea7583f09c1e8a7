import { ApiProperty } from '@nestjs/swagger';
import type { DeadLetter, DeadLetterDetails, WaitingKey } from '../../messaging/dead-letters.js';
import type {
  DeadLetterState,
  ShownBytes,
  ShownHeader,
} from '../../messaging/dead-letters/letter-details.js';
import type { Replay } from '../../messaging/replaying/replay.statements.js';
import type { Action, AuditEntry } from './audit.js';

const BYTES = {
  type: 'object',
  nullable: true,
  properties: { text: { type: 'string' }, base64: { type: 'string' } },
  description: '`{"text": …}` where it is UTF-8, else `{"base64": …}`.',
  example: { text: '{"name":1}' },
} as const;
const SEQ = { description: 'The number of the dead letter.', example: '4711' };
const AT = { type: 'string', format: 'date-time', example: '2026-01-30T22:04:05.678Z' } as const;
const NEXT = {
  type: 'string',
  nullable: true,
  description: 'For the next page; null on the last one.',
  example: null,
} as const;

/** A dead letter, or a message that waits behind one. */
export class DeadLetterDto implements DeadLetter {
  @ApiProperty(SEQ)
  seq!: string;
  @ApiProperty({ enum: ['dead', 'parked', 'replayed', 'discarded'] })
  state!: DeadLetterState;
  @ApiProperty({ example: 'people.create-0-7-1700000000000' })
  messageId!: string;
  @ApiProperty({ example: 'people.create' })
  topic!: string;
  @ApiProperty({ type: 'integer', example: 0 })
  partition!: number;
  @ApiProperty({ example: '7' })
  offset!: string;
  @ApiProperty({
    type: 'string',
    nullable: true,
    example: 'ada',
    description: 'The first 1,000 bytes of it.',
  })
  key!: string | null;
  @ApiProperty({ example: 'INVALID_INPUT' })
  code!: string;
  @ApiProperty({ example: 'name must be a non-empty string without NUL and without lone surrogates.' })
  message!: string;
  @ApiProperty({ type: 'integer', example: 1 })
  attempts!: number;
  @ApiProperty(AT)
  createdAt!: Date;
}

/** A dead letter with all that is known of it. */
export class DeadLetterDetailsDto extends DeadLetterDto implements DeadLetterDetails {
  @ApiProperty({ description: 'Ms since 1970, as its sender said.', example: '1700000000000' })
  timestamp!: string;
  @ApiProperty({ example: 'people' })
  consumer!: string;
  @ApiProperty({ ...AT, nullable: true, example: null })
  settledAt!: Date | null;
  @ApiProperty({ ...BYTES, example: { text: 'ada' } })
  keyBytes!: ShownBytes | null;
  @ApiProperty(BYTES)
  value!: ShownBytes | null;
  @ApiProperty({
    type: 'integer',
    nullable: true,
    description: 'Bytes of the value, of which 1 MiB is shown.',
    example: 10,
  })
  valueLength!: number | null;
  @ApiProperty({
    type: 'array',
    items: {
      type: 'object',
      properties: { name: { type: 'string' }, nameBase64: { type: 'string' }, value: { ...BYTES } },
    },
    example: [{ name: 'message-id', value: { text: 'm1' } }],
  })
  headers!: ShownHeader[];
  @ApiProperty({
    description: 'False where there are more than 1,000 headers, or 256 KiB of them.',
    example: true,
  })
  hasAllHeaders!: boolean;
  @ApiProperty({
    type: 'array',
    items: {
      type: 'object',
      properties: Object.fromEntries(
        ['type', 'message', 'code', 'stack'].map((name) => [name, { type: 'string' }]),
      ),
    },
    example: [{ type: 'InvalidInputError', message: 'name must be …', stack: '    at …' }],
  })
  causes!: DeadLetterDetails['causes'];
  @ApiProperty({ type: 'string', nullable: true, example: '4bf92f3577b34da6a3ce929d0e0e4736' })
  traceId!: string | null;
  @ApiProperty({ example: false })
  isQuarantined!: boolean;
}

/** A page of dead letters. */
export class DeadLettersPageDto {
  @ApiProperty({ type: [DeadLetterDto] })
  items!: DeadLetter[];
  @ApiProperty(NEXT)
  next!: string | null;
}

/** A key whose messages wait. */
export class WaitingKeyDto implements WaitingKey {
  @ApiProperty({ example: 'people' })
  consumer!: string;
  @ApiProperty({ example: 'people.commands' })
  topic!: string;
  @ApiProperty({ description: 'Names the key.', example: '00000003' })
  hash!: string;
  @ApiProperty({ type: 'string', nullable: true, example: 'ada' })
  key!: string | null;
  @ApiProperty({ type: 'integer', nullable: true, example: 0 })
  partition!: number | null;
  @ApiProperty(AT)
  since!: Date;
  @ApiProperty({
    ...AT,
    nullable: true,
    description: 'From when on its messages are handled; null: once it is released.',
  })
  releasedAt!: Date | null;
  @ApiProperty({
    type: 'string',
    nullable: true,
    description: 'The number of its first message.',
    example: '4711',
  })
  first!: string | null;
  @ApiProperty({ type: 'integer', description: 'Of its first 1,000 messages.', example: 1 })
  dead!: number;
  @ApiProperty({ type: 'integer', description: 'Of its first 1,000 messages.', example: 12 })
  parked!: number;
}

/** A page of keys. */
export class WaitingKeysPageDto {
  @ApiProperty({ type: [WaitingKeyDto] })
  items!: WaitingKey[];
  @ApiProperty(NEXT)
  next!: string | null;
}

/** What was done, by whom and why. */
export class AuditEntryDto implements AuditEntry {
  @ApiProperty({ example: '12' })
  seq!: string;
  @ApiProperty(AT)
  at!: Date;
  @ApiProperty({
    description: 'The subject of the token, and its issuer.',
    example: 'alice (https://issuer.example)',
  })
  actor!: string;
  @ApiProperty({ enum: ['replay', 'correct', 'discard', 'release-key', 'replay-window', 'cancel-window'] })
  action!: Action;
  @ApiProperty({ type: 'string', nullable: true, example: 'INC-4711' })
  reason!: string | null;
  @ApiProperty({ type: 'string', nullable: true, example: '4711' })
  deadLetter!: string | null;
  @ApiProperty({ type: 'string', nullable: true, example: null })
  topic!: string | null;
  @ApiProperty({ type: 'object', nullable: true, additionalProperties: true, example: null })
  details!: Record<string, unknown> | null;
}

/** A page of the audit. */
export class AuditPageDto {
  @ApiProperty({ type: [AuditEntryDto] })
  items!: AuditEntry[];
  @ApiProperty(NEXT)
  next!: string | null;
}

/** A window that is or was replayed. */
export class ReplayDto implements Replay {
  @ApiProperty({ format: 'uuid', example: '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f' })
  id!: string;
  @ApiProperty({ example: 'people.commands' })
  topic!: string;
  @ApiProperty(AT)
  from!: Date;
  @ApiProperty(AT)
  to!: Date;
  @ApiProperty({ example: 'alice' })
  actor!: string;
  @ApiProperty({ enum: ['running', 'done', 'cancelled', 'failed', 'gone'] })
  state!: Replay['state'];
  @ApiProperty({ type: 'string', nullable: true, example: null })
  error!: string | null;
  @ApiProperty({
    type: 'object',
    additionalProperties: { type: 'integer' },
    description: 'Offsets in all and read so far; messages applied, applied before, left out, dead, parked.',
    example: { total: 22, read: 22, applied: 3, repeated: 18, skipped: 1, dead: 0, parked: 0 },
  })
  progress!: Replay['progress'];
  @ApiProperty(AT)
  startedAt!: Date;
  @ApiProperty({ ...AT, nullable: true })
  endedAt!: Date | null;
}

/** The last windows. */
export class ReplaysDto {
  @ApiProperty({ type: [ReplayDto] })
  items!: Replay[];
}

/** The dead letter that something was done about. */
export class SettledDto {
  @ApiProperty(SEQ)
  seq!: string;
}

/** The same, and where what came is kept. */
export class CorrectedDto extends SettledDto {
  @ApiProperty({ description: 'The number under which what came is kept, as discarded.', example: '4802' })
  original!: string;
}

/** The key that was released. */
export class ReleasedDto {
  @ApiProperty({ example: 'people.commands' })
  topic!: string;
  @ApiProperty({ example: '00000003' })
  hash!: string;
}

/** The replay that was begun or cancelled. */
export class ReplayIdDto {
  @ApiProperty({ format: 'uuid', example: '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f' })
  id!: string;
}
