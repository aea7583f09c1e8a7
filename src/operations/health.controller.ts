import {
  Controller,
  Get,
  Inject,
  type OnModuleDestroy,
  Req,
  Res,
  ServiceUnavailableException,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { ApiOkResponse, ApiOperation, ApiServiceUnavailableResponse, ApiTags } from '@nestjs/swagger';
import { HealthCheckService, HealthIndicatorService, type HealthCheckResult } from '@nestjs/terminus';
import type { PoolConfig } from 'pg';
import { DataSource, MigrationExecutor } from 'typeorm';
import { poolOf, whyNoWrites } from '../database/pooled-client.js';

/** Why something that readiness depends on is not available; undefined when it is. */
export interface ReadinessSource {
  name: string;
  unavailableReason(): string | undefined | Promise<string | undefined>;
}

/** Sources of readiness beside the database: an array of `ReadinessSource`. */
export const READINESS_SOURCES = Symbol('READINESS_SOURCES');

/** Whether the sender of a request may read the reasons of readiness. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- requests are those of the platform
export type MayReadReasons = (request: any) => boolean;
export const MAY_READ_REASONS = Symbol('MAY_READ_REASONS');

/** Whether this process lives, and whether it should get work. */
@Controller('health')
@ApiTags('operations')
export class HealthController implements OnModuleDestroy {
  private stopping = false;

  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly dataSource: DataSource,
    private readonly adapterHost: HttpAdapterHost,
    @Inject(READINESS_SOURCES) private readonly sources: readonly ReadinessSource[],
    @Inject(MAY_READ_REASONS) private readonly mayReadReasons: MayReadReasons,
  ) {}

  @Get('live')
  @ApiOperation({ summary: 'The process answers' })
  live() {
    return { status: 'ok', info: {}, error: {}, details: {} };
  }

  @Get('ready')
  @ApiOperation({
    summary: 'Database, table, migrations and broker are as they should be; 503 with the reason when not',
  })
  @ApiOkResponse({ description: 'Ready for work.' })
  @ApiServiceUnavailableResponse({ description: '`error` names what is not available, and why.' })
  async ready(
    @Req() request: unknown,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<HealthCheckResult | Pick<HealthCheckResult, 'status'>> {
    const result = await this.check();
    if (result.status !== 'ok') this.adapterHost.httpAdapter.status(response, 503);
    // Names and reasons tell a stranger what there is, and how it is doing.
    return this.mayReadReasons(request) ? result : { status: result.status };
  }

  private async check(): Promise<HealthCheckResult> {
    try {
      return await this.health.check([
        () => this.indicate('service', this.stopping ? 'is stopping' : undefined),
        () => this.database(),
        () => this.migrations(),
        ...this.sources.map(
          (source) => async () => this.indicate(source.name, await source.unavailableReason()),
        ),
      ]);
    } catch (error) {
      if (!(error instanceof ServiceUnavailableException)) throw error;
      return error.getResponse() as HealthCheckResult;
    }
  }

  /** Tells load balancers before the server stops listening. */
  onModuleDestroy(): void {
    this.stopping = true;
  }

  private async database() {
    return this.indicate('database', await whyNoWrites(this.dataSource, acquireTimeoutMs(this.dataSource)));
  }

  private async migrations() {
    let pending = false;
    const reason = await reasonOf(this.showMigrations().then((some) => (pending = some)));
    return this.indicate(
      'migrations',
      reason ?? (pending ? 'pending; run npm run migration:run' : undefined),
    );
  }

  /** As the DataSource's own, which keeps the connection when it fails. */
  private async showMigrations(): Promise<boolean> {
    const queryRunner = this.dataSource.createQueryRunner();
    try {
      return await new MigrationExecutor(this.dataSource, queryRunner).showMigrations();
    } finally {
      await queryRunner.release();
    }
  }

  private indicate(name: string, reason: string | undefined) {
    const indicator = this.indicators.check(name);
    return reason === undefined ? indicator.up() : indicator.down({ reason });
  }
}

/** Without a limit of its own a pool waits for ever; readiness does not. */
const ANSWER_MS = 5000;

const acquireTimeoutMs = (dataSource: DataSource): number =>
  (poolOf(dataSource).options as PoolConfig).connectionTimeoutMillis || ANSWER_MS;

async function reasonOf(check: Promise<unknown>): Promise<string | undefined> {
  try {
    await check;
    return undefined;
  } catch (error) {
    return (error as Error).message || (error as Error).name;
  }
}
