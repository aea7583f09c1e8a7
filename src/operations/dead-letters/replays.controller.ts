import {
  Controller,
  Get,
  HttpCode,
  Inject,
  Param,
  ParseUUIDPipe,
  Post,
  Req,
  UseFilters,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common';
import { ProblemDetailsFilter } from '../../errors/error-responses.js';
import { NeedsScope, OPERATOR_OF, OperatorGuard, type OperatorOf } from './access.js';
import { Input, OperatorBodyInterceptor } from './input.js';
import { MessageOperations } from './message-operations.js';
import { ReasonDto, ReplayWindowDto } from './messages.dto.js';
import { DocumentAct, DocumentLook, DocumentMessages, NOT_FOUND, RUNNING } from './openapi.js';

/** Windows of topics that are replayed through the inbox: one at a time, its progress shown by every instance. */
@Controller('messages/replays')
@UseFilters(ProblemDetailsFilter)
@UseGuards(OperatorGuard)
@NeedsScope('people:read')
@DocumentMessages()
export class ReplaysController {
  constructor(
    private readonly operations: MessageOperations,
    @Inject(OPERATOR_OF) private readonly operatorOf: OperatorOf,
  ) {}

  @Get()
  @DocumentLook(
    'List the windows that are or were replayed',
    '`{items}`, newest first, each with its `progress`.',
  )
  async list() {
    return { items: await this.operations.listReplays() };
  }

  @Post()
  @HttpCode(200)
  @NeedsScope('people:operate')
  @UseInterceptors(OperatorBodyInterceptor)
  @DocumentAct(
    'Replay a window of a topic through the inbox',
    '`{id}`. What was applied is left as it is; the group and its offsets are left alone; messages that asked for a reply are left out.',
    ReplayWindowDto,
  )
  @RUNNING
  async begin(@Input(ReplayWindowDto) { topic, from, to, reason }: ReplayWindowDto, @Req() request: unknown) {
    const window = { topic, from: Date.parse(from), to: Date.parse(to) };
    return { id: await this.operations.replayWindow(window, this.act(request, reason)) };
  }

  @Post(':id/cancel')
  @HttpCode(200)
  @NeedsScope('people:operate')
  @UseInterceptors(OperatorBodyInterceptor)
  @DocumentAct(
    'Cancel the replay of a window',
    '`{id}`. Messages that are being handled end; what was applied stays.',
    ReasonDto,
  )
  @NOT_FOUND
  async cancel(
    @Param('id', ParseUUIDPipe) id: string,
    @Input(ReasonDto) { reason }: ReasonDto,
    @Req() request: unknown,
  ) {
    await this.operations.cancelReplay(id, this.act(request, reason));
    return { id };
  }

  private act(request: unknown, reason: string) {
    return { actor: this.operatorOf(request)!, reason };
  }
}
