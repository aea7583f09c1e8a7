import {
  Controller,
  Get,
  HttpCode,
  Inject,
  Param,
  Post,
  Query,
  Req,
  UseFilters,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common';
import { InvalidInputError } from '../../errors/application-error.js';
import { ProblemDetailsFilter } from '../../errors/error-responses.js';
import { bytesOfShown, headersOfShown } from '../../messaging/dead-letters/letter-details.js';
import { NeedsScope, OPERATOR_OF, OperatorGuard, type OperatorOf } from './access.js';
import { checkedInput, Input, OperatorBodyInterceptor } from './input.js';
import { MessageOperations } from './message-operations.js';
import {
  CorrectionDto,
  FindAuditDto,
  FindKeysDto,
  FindLettersDto,
  ReasonDto,
  ReleaseKeyDto,
} from './messages.dto.js';
import { DocumentAct, DocumentLook, DocumentMessages, NOT_FOUND, SETTLED } from './openapi.js';

const PAGE = { limit: 'How many, from 1 to 200; 50 when left out.' };

/** Dead letters, keys that wait for them, and who did what: seen with `people:read`, acted on with `people:operate`. */
@Controller('messages')
@UseFilters(ProblemDetailsFilter)
@UseGuards(OperatorGuard)
@NeedsScope('people:read')
@DocumentMessages()
export class DeadLettersController {
  constructor(
    private readonly operations: MessageOperations,
    @Inject(OPERATOR_OF) private readonly operatorOf: OperatorOf,
  ) {}

  @Get('dead-letters')
  @DocumentLook(
    'List dead letters',
    '`{items, next}`, oldest first; `next` is for `after`, null on the last page.',
    {
      ...{
        topic: 'For example `people.create`.',
        code: 'For example `INVALID_INPUT`.',
        key: 'The key, as text.',
      },
      state: '`dead`, `parked`, `replayed` or `discarded`; left out: those that are dead or parked.',
      ...PAGE,
      after: '`next` of the page before.',
    },
  )
  async list(@Query() query: Record<string, unknown>) {
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
  @DocumentLook('Show a dead letter', 'What came, what it failed with, and its trace id where it has one.')
  @NOT_FOUND
  show(@Param('seq') seq: string) {
    return this.operations.find(seqOf(seq));
  }

  @Post('dead-letters/:seq/replay')
  @HttpCode(200)
  @NeedsScope('people:operate')
  @UseInterceptors(OperatorBodyInterceptor)
  @DocumentAct(
    'Have a dead letter handled again',
    '`{seq}`. It is sent to its topic, or takes its place among those of its key.',
    ReasonDto,
  )
  @NOT_FOUND
  @SETTLED
  async replay(@Param('seq') seq: string, @Input(ReasonDto) { reason }: ReasonDto, @Req() request: unknown) {
    await this.operations.replay(seqOf(seq), this.act(request, reason));
    return { seq };
  }

  @Post('dead-letters/:seq/discard')
  @HttpCode(200)
  @NeedsScope('people:operate')
  @UseInterceptors(OperatorBodyInterceptor)
  @DocumentAct('Put a dead letter away for good', '`{seq}`. The last one of a key releases it.', ReasonDto)
  @NOT_FOUND
  @SETTLED
  async discard(@Param('seq') seq: string, @Input(ReasonDto) { reason }: ReasonDto, @Req() request: unknown) {
    await this.operations.discard(seqOf(seq), this.act(request, reason));
    return { seq };
  }

  @Post('dead-letters/:seq/correct')
  @HttpCode(200)
  @NeedsScope('people:operate')
  @UseInterceptors(OperatorBodyInterceptor)
  @DocumentAct(
    'Have a corrected copy of a dead letter handled in its place',
    '`{seq, original}`: what came is kept under the number `original`, as discarded.',
    CorrectionDto,
  )
  @NOT_FOUND
  @SETTLED
  async correct(
    @Param('seq') seq: string,
    @Input(CorrectionDto) input: CorrectionDto,
    @Req() request: unknown,
  ) {
    const { value, headers, reason } = input;
    const correction = {
      value: value && bytesOfShown(value),
      ...(headers && { headers: headersOfShown(headers) }),
    };
    return {
      seq,
      original: await this.operations.correct(seqOf(seq), correction, this.act(request, reason)),
    };
  }

  @Get('waiting-keys')
  @DocumentLook(
    'List the keys whose messages wait',
    '`{items, next}`; `next` is for `after`, null on the last page.',
    { topic: 'For example `people.commands`.', ...PAGE, after: '`next` of the page before.' },
  )
  async keys(@Query() query: Record<string, unknown>) {
    const { topic, limit, after = '' } = checkedInput(FindKeysDto, withNumber(query));
    const [, afterTopic = '', afterHash = ''] = /^(.*) ([\da-f]*)$/s.exec(after) ?? [];
    const items = await this.operations.waitingKeys(topic, limit, [afterTopic, afterHash]);
    const last = items.at(-1);
    return { items, next: items.length < limit ? null : `${last!.topic} ${last!.hash}` };
  }

  @Post('waiting-keys/release')
  @HttpCode(200)
  @NeedsScope('people:operate')
  @UseInterceptors(OperatorBodyInterceptor)
  @DocumentAct(
    'Release a key',
    '`{topic, hash}`. Its messages are handled in order; a dead letter that is left is passed by.',
    ReleaseKeyDto,
  )
  @NOT_FOUND
  async release(@Input(ReleaseKeyDto) { topic, hash, reason }: ReleaseKeyDto, @Req() request: unknown) {
    await this.operations.releaseKey(topic, hash, this.act(request, reason));
    return { topic, hash };
  }

  @Get('audit')
  @DocumentLook(
    'List what was done about messages',
    '`{items, next}`, newest first; `next` is for `before`.',
    {
      ...PAGE,
      before: '`next` of the page before.',
    },
  )
  async audit(@Query() query: Record<string, unknown>) {
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
