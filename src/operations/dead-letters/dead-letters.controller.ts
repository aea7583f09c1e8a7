import { Controller, Get, Inject, Param, Post, Query, Req, UseInterceptors } from '@nestjs/common';
import { InvalidInputError } from '../../errors/application-error.js';
import { bytesOfShown, headersOfShown } from '../../messaging/dead-letters/letter-details.js';
import { OPERATOR_OF, type OperatorOf } from '../operator-access.js';
import {
  AuditPageDto,
  CorrectedDto,
  DeadLetterDetailsDto,
  DeadLettersPageDto,
  ReleasedDto,
  SettledDto,
  WaitingKeysPageDto,
} from './answers.dto.js';
import { checkedInput, Input } from '../operator-input.js';
import { Acts, ReasonDto, Shows } from '../operator-routes.js';
import { MessageOperations } from './message-operations.js';
import { CorrectionDto, FindAuditDto, FindKeysDto, FindLettersDto, ReleaseKeyDto } from './messages.dto.js';
import { MessageRoutes, NOT_FOUND, SETTLED } from './openapi.js';
import { LargeAnswerInterceptor } from './places.js';

const LIMIT = { limit: 'How many, from 1 to 200; 50 when left out.' };
const AFTER = { after: '`next` of the page before.' };

/** Dead letters, keys that wait for them, and who did what: seen with `people:read`, acted on with `people:operate`. */
@Controller('messages')
@MessageRoutes()
export class DeadLettersController {
  constructor(
    private readonly operations: MessageOperations,
    @Inject(OPERATOR_OF) private readonly operatorOf: OperatorOf,
  ) {}

  @Get('dead-letters')
  @Shows({
    summary: 'List dead letters',
    ...{ type: DeadLettersPageDto, description: 'Oldest first.' },
    query: {
      topic: 'For example `people.create`.',
      code: 'For example `INVALID_INPUT`.',
      key: 'The key, as text.',
      state: '`dead`, `parked`, `replayed` or `discarded`; left out: those that are dead or parked.',
      ...LIMIT,
      ...AFTER,
    },
  })
  async list(@Query() query: Record<string, unknown>): Promise<DeadLettersPageDto> {
    const { topic, code, key, state, limit, after } = checkedInput(FindLettersDto, withNumber(query));
    const filter = {
      ...(topic !== undefined && { topic }),
      ...(code !== undefined && { error: code }),
      ...(key !== undefined && { key }),
      ...(state !== undefined && { state }),
    };
    const items = await this.operations.list(filter, limit, after);
    return { items, next: items.length < limit ? null : items.at(-1)!.seq };
  }

  @Get('dead-letters/:seq')
  @UseInterceptors(LargeAnswerInterceptor)
  @Shows({
    summary: 'Show a dead letter',
    ...{ type: DeadLetterDetailsDto, description: 'What came, and what it failed with.' },
  })
  @NOT_FOUND
  show(@Param('seq') seq: string): Promise<DeadLetterDetailsDto> {
    return this.operations.find(seqOf(seq));
  }

  @Post('dead-letters/:seq/replay')
  @Acts({
    summary: 'Have a dead letter handled again',
    ...{ body: ReasonDto, type: SettledDto },
    description: 'It is sent to its topic, or takes its place among those of its key.',
  })
  @NOT_FOUND
  @SETTLED
  async replay(
    @Param('seq') seq: string,
    @Input(ReasonDto) { reason }: ReasonDto,
    @Req() request: unknown,
  ): Promise<SettledDto> {
    await this.operations.replay(seqOf(seq), this.act(request, reason));
    return { seq };
  }

  @Post('dead-letters/:seq/discard')
  @Acts({
    summary: 'Put a dead letter away for good',
    ...{ body: ReasonDto, type: SettledDto, description: 'The last one of a key releases it.' },
  })
  @NOT_FOUND
  @SETTLED
  async discard(
    @Param('seq') seq: string,
    @Input(ReasonDto) { reason }: ReasonDto,
    @Req() request: unknown,
  ): Promise<SettledDto> {
    await this.operations.discard(seqOf(seq), this.act(request, reason));
    return { seq };
  }

  @Post('dead-letters/:seq/correct')
  @Acts({
    summary: 'Have a corrected copy of a dead letter handled in its place',
    ...{ body: CorrectionDto, type: CorrectedDto },
    description: 'What came is kept, as discarded, and stays marked as handled.',
  })
  @NOT_FOUND
  @SETTLED
  async correct(
    @Param('seq') seq: string,
    @Input(CorrectionDto) { value, headers, reason }: CorrectionDto,
    @Req() request: unknown,
  ): Promise<CorrectedDto> {
    const correction = {
      value: value && bytesOfShown(value),
      ...(headers && { headers: headersOfShown(headers) }),
    };
    const original = await this.operations.correct(seqOf(seq), correction, this.act(request, reason));
    return { seq, original };
  }

  @Get('waiting-keys')
  @Shows({
    summary: 'List the keys whose messages wait',
    ...{ type: WaitingKeysPageDto, description: 'By topic and key.' },
    query: { topic: 'For example `people.commands`.', ...LIMIT, ...AFTER },
  })
  async keys(@Query() query: Record<string, unknown>): Promise<WaitingKeysPageDto> {
    const { topic, limit, after = '' } = checkedInput(FindKeysDto, withNumber(query));
    const [, afterTopic = '', afterHash = ''] = /^(.*) ((?:[\da-f]{2})*)$/s.exec(after) ?? [];
    const items = await this.operations.waitingKeys(topic, limit, [afterTopic, afterHash]);
    const last = items.at(-1);
    return { items, next: items.length < limit ? null : `${last!.topic} ${last!.hash}` };
  }

  @Post('waiting-keys/release')
  @Acts({
    summary: 'Release a key',
    ...{ body: ReleaseKeyDto, type: ReleasedDto },
    description: 'Its messages are handled in order; a dead letter that is left is passed by.',
  })
  @NOT_FOUND
  async release(
    @Input(ReleaseKeyDto) { topic, hash, reason }: ReleaseKeyDto,
    @Req() request: unknown,
  ): Promise<ReleasedDto> {
    await this.operations.releaseKey(topic, hash, this.act(request, reason));
    return { topic, hash };
  }

  @Get('audit')
  @Shows({
    summary: 'List what was done about messages',
    ...{ type: AuditPageDto, description: 'Newest first.' },
    query: { ...LIMIT, before: '`next` of the page before.' },
  })
  async audit(@Query() query: Record<string, unknown>): Promise<AuditPageDto> {
    const { limit, before } = checkedInput(FindAuditDto, withNumber(query));
    const items = await this.operations.listAudit(limit, before);
    return { items, next: items.length < limit ? null : items.at(-1)!.seq };
  }

  private act(request: unknown, reason: string) {
    return { actor: this.operatorOf(request)!, reason };
  }
}

/** Parameters of a query are texts. */
function withNumber({ limit, ...query }: Record<string, unknown>): object {
  if (limit === undefined) return query;
  return { ...query, limit: typeof limit === 'string' && /^\d{1,9}$/.test(limit) ? Number(limit) : limit };
}

function seqOf(text: string): string {
  if (/^\d{1,18}$/.test(text)) return text;
  throw new InvalidInputError('The number of a dead letter has digits alone.');
}
