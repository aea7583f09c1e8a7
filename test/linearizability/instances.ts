import { eventually } from '../support/barrier.js';
import { ServiceHome, type ServiceProcess } from '../support/service-process.js';

const START_MS = 120_000;

/** A process of the service, which is started again when it was killed. */
export class Instance {
  starts = 0;
  private readonly home = new ServiceHome();
  private service: ServiceProcess | undefined;
  private keeping: Promise<void> = Promise.resolve();
  private isWanted = true;
  private isKilled = false;
  /** Where it listens; undefined while it does not. */
  url: string | undefined;

  constructor(
    readonly name: string,
    private readonly environment: Record<string, string>,
    private readonly onViolation: (violation: string) => void,
  ) {
    this.keeping = this.keepUp();
  }

  async untilUp(): Promise<void> {
    await eventually(() => this.url !== undefined, START_MS);
  }

  /** `kill -9` */
  kill(): void {
    this.url = undefined;
    this.isKilled = true;
    this.service?.signal('SIGKILL');
  }

  async close(): Promise<void> {
    this.isWanted = false;
    this.kill();
    await this.keeping;
    await this.home.remove();
  }

  private async keepUp(): Promise<void> {
    while (this.isWanted) {
      this.isKilled = false;
      this.starts++;
      const service = (this.service = this.home.start(this.environment));
      void service.services().then(
        ({ http }) => {
          if (this.service === service && !this.isKilled) this.url = http;
        },
        // It has ended before, which is told below.
        () => undefined,
      );
      const { code, stderr } = await service.ended;
      const wasUp = this.url !== undefined;
      this.url = undefined;
      // It may find no database when it starts, and is started once more.
      if (wasUp && !this.isKilled) this.onViolation(`an instance ended with ${code}: ${stderr.slice(-2000)}`);
    }
  }
}
