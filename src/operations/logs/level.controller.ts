import { Controller, Get, Inject, Post, Req } from '@nestjs/common';
import { ApiProperty } from '@nestjs/swagger';
import { IsIn } from 'class-validator';
import { OPERATOR_OF, type OperatorOf } from '../operator-access.js';
import { Input } from '../operator-input.js';
import { Acts, OperatorRoutes, ReasonDto, Shows } from '../operator-routes.js';
import { LEVELED, type Leveled, LOG_LEVELS, type LogLevel } from './level.js';

/** How much is written. */
export class LogLevelDto {
  /** The least severe lines that are written. */
  @ApiProperty({ enum: LOG_LEVELS })
  level!: LogLevel;
}

/** How much is to be written from now on. */
export class SetLogLevelDto extends ReasonDto {
  /** The least severe lines that are written. */
  @ApiProperty({ enum: LOG_LEVELS, example: 'debug' })
  @IsIn(LOG_LEVELS)
  level!: LogLevel;
}

/** The level of this process' log: seen with `people:read`, set with `people:operate`. Nothing but this process is asked. */
@Controller('logs/level')
@OperatorRoutes('logs')
export class LogLevelController {
  constructor(
    @Inject(LEVELED) private readonly logger: Leveled,
    @Inject(OPERATOR_OF) private readonly operatorOf: OperatorOf,
  ) {}

  @Get()
  @Shows({
    summary: 'Show the level of the log',
    type: LogLevelDto,
    description: 'Of the instance that is asked.',
  })
  read(): LogLevelDto {
    return { level: this.logger.level };
  }

  @Post()
  @Acts({
    summary: 'Set the level of the log',
    ...{ body: SetLogLevelDto, type: LogLevelDto },
    description:
      'Of the instance that is asked, until it is set again or the process ends. A line of the log says who did it and why.',
  })
  set(@Input(SetLogLevelDto) { level, reason }: SetLogLevelDto, @Req() request: unknown): LogLevelDto {
    this.logger.setLevel(level, { actor: this.operatorOf(request)!, reason });
    return { level };
  }
}
