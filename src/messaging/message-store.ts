import { Injectable } from '@nestjs/common';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import { DeadLetters } from './dead-letters.js';
import { Inbox } from './inbox.js';
import { Outbox } from './outbox.js';

/** Everything that `KafkaTransport` keeps in the database: its option `store`. */
@Injectable()
export class MessageStore {
  constructor(
    readonly transactions: TransactionRunner,
    readonly inbox: Inbox,
    readonly deadLetters: DeadLetters,
    readonly outbox: Outbox,
  ) {}
}
