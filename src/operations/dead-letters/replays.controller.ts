import { Controller, Get, Inject, Param, ParseUUIDPipe, Post, Req } from '@nestjs/common';
import { OPERATOR_OF, type OperatorOf } from '../operator-access.js';
import { ReplayIdDto, ReplaysDto } from './answers.dto.js';
import { Input } from '../operator-input.js';
import { Acts, ReasonDto, Shows } from '../operator-routes.js';
import { MessageOperations } from './message-operations.js';
import { ReplayWindowDto } from './messages.dto.js';
import { MessageRoutes, NOT_FOUND, RUNNING } from './openapi.js';

/** Windows of topics that are replayed through the inbox: one at a time, its progress shown by every instance. */
@Controller('messages/replays')
@MessageRoutes()
export class ReplaysController {
  constructor(
    private readonly operations: MessageOperations,
    @Inject(OPERATOR_OF) private readonly operatorOf: OperatorOf,
  ) {}

  @Get()
  @Shows({
    summary: 'List the windows that are or were replayed',
    ...{ type: ReplaysDto, description: 'Newest first, each with how far it is.' },
  })
  async list(): Promise<ReplaysDto> {
    return { items: await this.operations.listReplays() };
  }

  @Post()
  @Acts({
    summary: 'Replay a window of a topic through the inbox',
    ...{ body: ReplayWindowDto, type: ReplayIdDto },
    description:
      'What was applied is left as it is; the group and its offsets are left alone; messages that asked for a reply are left out.',
  })
  @RUNNING
  async begin(
    @Input(ReplayWindowDto) { topic, from, to, reason }: ReplayWindowDto,
    @Req() request: unknown,
  ): Promise<ReplayIdDto> {
    const window = { topic, from: Date.parse(from), to: Date.parse(to) };
    return { id: await this.operations.replayWindow(window, this.act(request, reason)) };
  }

  @Post(':id/cancel')
  @Acts({
    summary: 'Cancel the replay of a window',
    ...{ body: ReasonDto, type: ReplayIdDto },
    description: 'Messages that are being handled end; what was applied stays.',
  })
  @NOT_FOUND
  async cancel(
    @Param('id', ParseUUIDPipe) id: string,
    @Input(ReasonDto) { reason }: ReasonDto,
    @Req() request: unknown,
  ): Promise<ReplayIdDto> {
    await this.operations.cancelReplay(id, this.act(request, reason));
    return { id };
  }

  private act(request: unknown, reason: string) {
    return { actor: this.operatorOf(request)!, reason };
  }
}
