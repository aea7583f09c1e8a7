import { Injectable, type OnModuleDestroy } from '@nestjs/common';

/** Whether the application is about to stop: balancers are told by readiness, and clients by the end of their connections. */
@Injectable()
export class Stopping implements OnModuleDestroy {
  hasBegun = false;

  /** From now on it is told, while everything is served as before. */
  begin(): void {
    this.hasBegun = true;
  }

  onModuleDestroy(): void {
    this.begin();
  }
}
