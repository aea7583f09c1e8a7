import { type DynamicModule, Module } from '@nestjs/common';
import { OPERATOR_OF, type OperatorOf } from '../operator-access.js';
import { LogLevelController } from './level.controller.js';
import { LEVELED, type Leveled } from './level.js';

/** `/logs/level`: how much this process writes, for the people on call. */
@Module({})
export class LogsModule {
  /** @param logger whose level it is @param operatorOf how it is known who asks */
  static forRoot(logger: Leveled, operatorOf: OperatorOf): DynamicModule {
    return {
      module: LogsModule,
      controllers: [LogLevelController],
      providers: [
        { provide: LEVELED, useValue: logger },
        { provide: OPERATOR_OF, useValue: operatorOf },
      ],
    };
  }
}
