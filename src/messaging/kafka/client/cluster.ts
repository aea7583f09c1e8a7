import { brokerAnswer, BrokerAnswerError } from '../broker-answers.js';
import { brokerErrorName } from '../protocol/error-names.js';
import {
  addressKey,
  type BrokerAddress,
  type BrokerConnections,
  type Purpose,
} from '../broker-connections.js';
import { FETCH, FETCH_BY_ID } from '../protocol/record-requests.js';
import {
  type ApiRequest,
  type ApiVersions,
  apiVersions,
  type ClusterView,
  metadata,
  METADATA,
  METADATA_WITH_IDS,
} from '../protocol/topic-requests.js';
import type { LateAnswers } from '../../telemetry/late-answers.js';
import { AnswerReader } from '../protocol/wire-format.js';

/** How long a broker may take for a request that it can answer at once. */
export const REQUEST_TIMEOUT_MS = 10_000;
/** Brokers are asked anew for their versions after this time: they may have been replaced by newer or older ones. */
const VERSIONS_MAX_AGE_MS = 60_000;
const CLOSED = 'the connection to Kafka is closed';

/** The error of an answer's code; undefined for none. @param about what was asked for */
export const answerError = (about: string, code: number): BrokerAnswerError | undefined =>
  code === 0 ? undefined : new BrokerAnswerError(about, brokerErrorName(code));

/** Why a topic that was asked for can't be used. */
export function topicError(about: string, topic: string, { refused }: ClusterView): BrokerAnswerError {
  const code = refused.get(topic);
  return new BrokerAnswerError(
    about,
    code === undefined ? 'UNKNOWN_TOPIC_OR_PARTITION' : brokerErrorName(code),
  );
}

/** @throws BrokerAnswerError the code is one of an error */
export function check(about: string, code: number): void {
  const error = answerError(about, code);
  if (error) throw error;
}

/** What libraries say of a failure is in its cause at times: that a certificate is not known. */
function reasonOf({ message, cause }: Error): string {
  const why = (cause as Partial<Error> | undefined)?.message;
  return why && !message.includes(why) ? `${message} ${why}` : message;
}

/** Kafka's name of the error that a broker has answered; undefined where there was no answer. */
export const answerIn = (error: unknown): string | undefined =>
  error instanceof BrokerAnswerError ? error.answer : undefined;

/** True when the same request may be answered otherwise a little later, as when there was no answer. */
export function isPassing(error: unknown): boolean {
  const answer = answerIn(error);
  return answer === undefined || brokerAnswer(answer) === 'again';
}

/** Requests to the brokers of a cluster, and what they say of it. */
export class Cluster {
  private known: BrokerAddress[] = [];
  private versions: { of: ApiVersions; askedAt: number } | undefined;
  private isClosed = false;
  private readonly underWay = new Set<(reason: Error) => void>();

  constructor(
    readonly connections: BrokerConnections,
    private readonly bootstrap: readonly BrokerAddress[],
    private readonly late: LateAnswers,
  ) {}

  /**
   * @throws BrokerAnswerError the broker does not let this client in
   * @throws Error the broker can't be reached, or has not answered in time; its connection is given up then
   */
  async call<Answer>(
    broker: BrokerAddress,
    { name, read, ...request }: ApiRequest<Answer>,
    { purpose = 'requests', timeoutMs = REQUEST_TIMEOUT_MS }: { purpose?: Purpose; timeoutMs?: number } = {},
  ): Promise<Answer> {
    const { connections } = this;
    let giveUp!: (reason: Error) => void;
    const givenUp = new Promise<never>((_, reject) => (giveUp = reject));
    // It may reject when nobody waits for it any more, which must not end the process.
    givenUp.catch(() => undefined);
    const since = performance.now();
    const late = setTimeout(() => {
      giveUp(new Error(`no answer in ${timeoutMs} ms`));
      connections.cut(purpose, broker);
    }, timeoutMs);
    this.underWay.add(giveUp);
    try {
      if (this.isClosed) throw new Error(CLOSED);
      const sending = connections.send(broker, { ...request, purpose });
      return read(new AnswerReader(await Promise.race([givenUp, sending])));
    } catch (cause) {
      if (cause instanceof BrokerAnswerError) throw cause;
      throw new Error(`${name} at ${addressKey(broker)}: ${reasonOf(cause as Error)}`, { cause });
    } finally {
      clearTimeout(late);
      this.underWay.delete(giveUp);
      // What a request may take beyond the usual is what the broker is asked to wait, for records or for other members.
      const mayWaitMs = Math.max(0, timeoutMs - REQUEST_TIMEOUT_MS);
      if (!this.isClosed) this.late.ended(name, addressKey(broker), performance.now() - since - mayWaitMs);
    }
  }

  /** Asks whichever broker answers. @throws as `call`, what the last of them made of it */
  async callAny<Answer>(request: ApiRequest<Answer>): Promise<Answer> {
    const addresses = new Map([...this.known, ...this.bootstrap].map((at) => [addressKey(at), at]));
    let failure: unknown;
    for (const broker of addresses.values()) {
      try {
        return await this.call(broker, request);
      } catch (error) {
        failure = error;
        // Another is asked first the next time.
        this.known = [
          ...this.known.filter((at) => at !== broker),
          ...this.known.filter((at) => at === broker),
        ];
        if (this.isClosed) break;
      }
    }
    throw failure;
  }

  /** What the cluster says of `topics`; null = all. Creates none. */
  async view(topics: readonly string[] | null): Promise<ClusterView> {
    const hasIds = await this.has(METADATA, METADATA_WITH_IDS);
    const view = await this.callAny(metadata(topics && [...new Set(topics)], hasIds));
    this.known = [...view.brokers.values()];
    return view;
  }

  /** True where partitions are fetched by their topic's id. */
  fetchesById(): Promise<boolean> {
    return this.has(FETCH, FETCH_BY_ID);
  }

  /** Asks brokers for their versions anew. */
  forgetVersions(): void {
    this.versions = undefined;
  }

  /** Whoever waits for an answer is told at once. */
  close(): void {
    this.isClosed = true;
    for (const giveUp of this.underWay) giveUp(new Error(CLOSED));
    this.connections.close();
  }

  private async has(apiKey: number, version: number): Promise<boolean> {
    const now = performance.now();
    if (!this.versions || now - this.versions.askedAt > VERSIONS_MAX_AGE_MS)
      this.versions = { of: await this.callAny(apiVersions()), askedAt: now };
    const { min = 0, max = 0 } = this.versions.of.get(apiKey) ?? {};
    return version >= min && version <= max;
  }
}
