// operations/health/: Whether this process lives, and whether it is to get work, by groups of work.
// Promises: one look for all who ask at once, and an answer within a second; reasons for those who may read them alone.
// May know: database/, and how something is waited for; of others what they say by a `ReadinessSource`.

import {
  BadRequestException,
  Controller,
  Get,
  Inject,
  Query,
  Req,
  Res,
  ServiceUnavailableException,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import {
  ApiBadRequestResponse,
  ApiOkResponse,
  ApiOperation,
  ApiQuery,
  ApiServiceUnavailableResponse,
  ApiTags,
} from '@nestjs/swagger';
import { HealthCheckService, HealthIndicatorService, type HealthCheckResult } from '@nestjs/terminus';
import { type Condition, HTTP_GROUP, Readiness } from './readiness.js';

/** Whether the sender of a request may read the reasons of readiness. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- requests are those of the platform
export type MayReadReasons = (request: any) => boolean;
export const MAY_READ_REASONS = Symbol('MAY_READ_REASONS');
/** The groups that `/health/ready` is about where none is asked for. */
export const READINESS_GROUPS = Symbol('READINESS_GROUPS');

/** Whether this process lives, and whether it should get work. */
@Controller('health')
@ApiTags('operations')
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly readiness: Readiness,
    private readonly adapterHost: HttpAdapterHost,
    @Inject(READINESS_GROUPS) private readonly groups: readonly string[],
    @Inject(MAY_READ_REASONS) private readonly mayReadReasons: MayReadReasons,
  ) {}

  @Get('live')
  @ApiOperation({ summary: 'The process answers' })
  live() {
    return { status: 'ok', info: {}, error: {}, details: {} };
  }

  @Get('ready')
  @ApiOperation({
    summary:
      'What HTTP needs is as it should be: database, migrations, table; 503 with the reason when not, and while stopping',
  })
  @ApiQuery({
    name: 'group',
    required: false,
    description: '`messages`: what messages need as well, which is the broker.',
  })
  @ApiOkResponse({ description: 'Ready for work. `details` also tells of what other groups need.' })
  @ApiBadRequestResponse({ description: 'There is no such group.' })
  @ApiServiceUnavailableResponse({ description: '`error` names what is not available, and why.' })
  async ready(
    @Query('group') group: unknown,
    @Req() request: unknown,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<HealthCheckResult | Pick<HealthCheckResult, 'status'>> {
    const groups = group === undefined ? this.groups : [this.known(group)];
    const conditions = await this.readiness.look();
    const result = await this.resultOf(conditions, groups, group === undefined);
    if (result.status !== 'ok') this.adapterHost.httpAdapter.status(response, 503);
    // Names and reasons tell a stranger what there is, and how it is doing.
    return this.mayReadReasons(request) ? result : { status: result.status };
  }

  /** @throws BadRequestException there is no such group */
  private known(group: unknown): string {
    const { groups } = this.readiness;
    const known = groups.find((each) => each === group);
    if (known === undefined) throw new BadRequestException(`group has to be one of: ${groups.join(', ')}.`);
    return known;
  }

  private async resultOf(
    conditions: readonly Condition[],
    groups: readonly string[],
    tellsAll: boolean,
  ): Promise<HealthCheckResult> {
    const isNeeded = ({ group }: Condition) => group === HTTP_GROUP || groups.some((each) => each === group);
    const isTold = ({ group }: Condition) => group === undefined || tellsAll;
    const result = await this.check(conditions.filter(isNeeded));
    const others = conditions.filter((each) => !isNeeded(each) && isTold(each));
    const told = Object.assign(
      {},
      ...others.map((each) => this.indicate(each)),
    ) as HealthCheckResult['details'];
    return { ...result, info: { ...result.info, ...told }, details: { ...result.details, ...told } };
  }

  private async check(conditions: readonly Condition[]): Promise<HealthCheckResult> {
    try {
      return await this.health.check(conditions.map((each) => () => this.indicate(each)));
    } catch (error) {
      if (!(error instanceof ServiceUnavailableException)) throw error;
      return error.getResponse() as HealthCheckResult;
    }
  }

  private indicate({ name, reason }: Condition) {
    const indicator = this.indicators.check(name);
    return reason === undefined ? indicator.up() : indicator.down({ reason });
  }
}
