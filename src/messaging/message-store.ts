import { Injectable } from '@nestjs/common';
import { TransactionRunner } from '../transactions/transaction-runner.js';
import { DeadLetters } from './dead-letters.js';
import { Inbox } from './inbox.js';
import { Outbox } from './outbox.js';
import type { WatchedTransport } from './telemetry/transport-figures.js';

/** Everything that `KafkaTransport` keeps in the database: its option `store`. */
@Injectable()
export class MessageStore {
  private readonly listening: WatchedTransport[] = [];
  private readonly watchers: ((transport: WatchedTransport) => void)[] = [];

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

  /** The transports that keep their messages here, from when they begin to listen. */
  get transports(): readonly WatchedTransport[] {
    return this.listening;
  }

  /** Calls with each of them, also with those that come later. */
  watchTransports(watch: (transport: WatchedTransport) => void): void {
    this.watchers.push(watch);
    for (const transport of this.listening) watch(transport);
  }

  /** A transport begins to listen. */
  addTransport(transport: WatchedTransport): void {
    if (this.listening.includes(transport)) return;
    this.listening.push(transport);
    for (const watch of this.watchers) watch(transport);
  }
}
