import { type ExecutionContext, Inject, Injectable, Logger, type OnModuleInit } from '@nestjs/common';
import type { KafkaContext } from '@nestjs/microservices';
import type { DataSource } from 'typeorm';
import { type HandlerClaim, useHandlerClaims } from '../../transactions/handler-claims.js';
import { TRANSACTIONS_DATA_SOURCE } from '../../transactions/transaction-runner.js';
import { DeadLetters } from '../dead-letters.js';
import { describe } from '../failure-policy.js';
import { identityOfCall, isClaimedCall, type StockCall } from '../consuming/handled-call.js';
import { Inbox, MessageIdConflictError } from '../inbox.js';

/** Has the handlers that begin units of work on this DataSource (`@Transactional`) run once per message. */
@Injectable()
export class HandlerInbox implements OnModuleInit {
  private readonly logger = new Logger(HandlerInbox.name);

  constructor(
    @Inject(TRANSACTIONS_DATA_SOURCE) private readonly dataSource: DataSource,
    private readonly inbox: Inbox,
    private readonly deadLetters: DeadLetters,
  ) {}

  onModuleInit(): void {
    useHandlerClaims(this.dataSource, {
      isClaimed: (context) => isClaimedCall(context.switchToRpc().getContext()),
      claimFor: (context) => this.claimFor(context),
    });
  }

  private async claimFor(context: ExecutionContext): Promise<HandlerClaim | undefined> {
    const call = await identityOfCall(context.switchToRpc().getContext<KafkaContext>(), context);
    if (!call) return undefined;
    const claim = this.inbox.claimOf(call);
    if (!('record' in call) || call.isAnswered) return claim;
    const find = async () => {
      const kept = await claim.find();
      if (!kept) return undefined;
      return async () => {
        try {
          return await kept();
        } catch (error) {
          return this.putAside(call, error);
        }
      };
    };
    return { ...claim, find };
  }

  /** Nest's own transport would log the conflict and go on: nobody would see the message again. */
  private async putAside({ message, record }: StockCall, error: unknown): Promise<unknown[]> {
    if (!(error instanceof MessageIdConflictError)) throw error;
    if (await this.deadLetters.add({ message, record, attempts: 1 }, describe(error))) {
      const { topic, partition, offset } = record;
      const where = { messageId: message.messageId, topic, partition, offset: String(offset) };
      this.logger.warn({ msg: 'message dead-lettered', ...where, code: describe(error).code });
    }
    return [];
  }
}
