// operations/dead-letters/: What people on call see of messages and do about them, over HTTP.
// Promises: each act is one unit of work with a row that says who did it and why; nothing is applied twice by it.
// May know: messaging/ and below; nothing of people, nor how an application knows who asks.

import { type DynamicModule, Module } from '@nestjs/common';
import { OPERATOR_OF, type OperatorOf } from '../operator-access.js';
import { DeadLettersController } from './dead-letters.controller.js';
import { MessageOperations } from './message-operations.js';
import { ReplaysController } from './replays.controller.js';

/** Options of `MessageOperationsModule.forRoot`. */
export interface MessageOperationsOptions {
  /**
   * Names who sent a request, for the audit: `(request) => request.user?.sub`. A request whose sender has no name is refused, so that
   * the routes are closed as long as nothing tells who asks.
   */
  operatorOf: OperatorOf;
}

/**
 * The routes `/messages`: dead letters, keys whose messages wait, and who did what about them. For an application that imports
 * `MessagingModule` (or `PeopleModule`) and has a guard: handlers name the scope they need as the metadata `OPERATION_SCOPE`,
 * `people:read` to see and `people:operate` to act.
 */
@Module({})
export class MessageOperationsModule {
  /** The module with these options. There is no default: it has to be known who asks. */
  static forRoot({ operatorOf }: MessageOperationsOptions): DynamicModule {
    return {
      module: MessageOperationsModule,
      controllers: [DeadLettersController, ReplaysController],
      providers: [MessageOperations, { provide: OPERATOR_OF, useValue: operatorOf }],
      exports: [MessageOperations],
    };
  }
}
