import { Injectable } from '@nestjs/common';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import { DeadLetters } from './dead-letters.js';
import { Inbox } from './inbox.js';
import { Outbox } from './outbox.js';

/** Everything that `KafkaTransport` keeps in the database: its option `store`. */
@Injectable()
export class MessageStore {
  constructor(
    /** Runs the units of work that messages are handled in. */
    readonly transactions: TransactionRunner,
    /** What was handled. */
    readonly inbox: Inbox,
    /** What can't be handled, or waits. */
    readonly deadLetters: DeadLetters,
    /** What is to be sent. */
    readonly outbox: Outbox,
  ) {}
}
