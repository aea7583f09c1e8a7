import { Logger, type OnModuleDestroy } from '@nestjs/common';
import { type KafkaContext, type OutgoingResponse, ServerKafka } from '@nestjs/microservices';
import type { StuckPartition } from './kafka-driver.js';
import { driverFactory } from './kafka/clients.js';
import { composeTransport, type Transport } from './kafka/composition.js';
import { assertOneForm } from './consuming/handled-call.js';
import type { NestServer } from './kafka/handler-calls.js';
import type { Serialized } from './kafka/replies/sending.js';
import type { WindowReplays } from './replaying/window-replays.js';
import { type KafkaTransportOptions, settingsOf, type TransportSettings } from './kafka/transport-options.js';
import type { PartitionLag, TransportFigures } from './telemetry/transport-figures.js';

/** Extras of a message pattern whose messages may share a transaction: `@MessagePattern('people.create', BATCHABLE)`. */
export const BATCHABLE = { batchable: true } as const;

/**
 * Nest's Kafka server, with what it lacks to lose nothing: messages of one key are handled in order and those of different
 * keys side by side; the offset moves only over messages whose effect is committed and whose reply is acknowledged; what
 * can't be handled goes to `<topic>-dlt`; while the database is away nothing is fetched and the place in the group is kept;
 * missing topics are created; and a broker that is away keeps nobody from starting.
 */
export class KafkaTransport extends ServerKafka implements OnModuleDestroy {
  protected override readonly logger = new Logger(KafkaTransport.name);
  private readonly settings: TransportSettings;
  private readonly parts: Transport;

  constructor(options: KafkaTransportOptions) {
    const { client, groupId, parser, serializer, deserializer } = options;
    super({
      client: { brokers: client.brokers, ...(client.clientId && { clientId: client.clientId }) },
      consumer: { groupId },
      postfixId: '',
      ...(parser && { parser }),
      ...(serializer && { serializer }),
      ...(deserializer && { deserializer }),
    });
    this.settings = settingsOf(options);
    this.parts = composeTransport(this.settings, this.asNestServer(), this.logger);
  }

  /** undefined while messages are consumed and handled, else why they, or those of a topic or partition, are not. */
  get unavailableReason(): string | undefined {
    return this.parts.availability.reason;
  }

  /**
   * Messages that the group has committed and the database does not know, in a sentence, as it was found at the start: the database is
   * older than the group's offsets. undefined where nothing was found.
   */
  get offsetsAhead(): string | undefined {
    return this.parts.restored?.offsetsAhead;
  }

  /** The partitions, and whole topics (partition -1), that are not read on while the others are. */
  get stuckPartitions(): readonly StuckPartition[] {
    return this.parts.availability.stuck;
  }

  /** What it has at the moment: its partitions, messages in memory, whether it is connected. */
  get figures(): TransportFigures {
    return this.parts.figures();
  }

  /**
   * Asks the brokers how far behind this member is in each of its partitions.
   *
   * @throws Error the brokers can't be reached
   */
  lag(): Promise<PartitionLag[]> {
    return this.parts.lag();
  }

  /** Messages that did not end before the deadline of stopping; they come again. */
  get unfinished(): number {
    return this.parts.connection.unfinished;
  }

  /** Steps of stopping that did not end before its deadline, as where the brokers hang; they are left to themselves. */
  get unfinishedSteps(): readonly string[] {
    return this.parts.connection.unfinishedSteps;
  }

  /** Replays windows of the topics that are read here; undefined without a store. */
  get replays(): WindowReplays | undefined {
    return this.parts.replays;
  }

  /**
   * Connects in the background, again and again until the brokers can be reached. Calls back with an error only where the
   * client library is not installed, or handlers of one topic ask for its values in different forms.
   */
  override async listen(callback: (error?: unknown) => void): Promise<void> {
    const { driver, client, parser } = this.settings;
    try {
      if (!parser?.keepBinary) assertOneForm(this.messageHandlers);
      const create = typeof driver === 'string' ? await driverFactory(driver) : driver;
      this.settings.store?.addTransport(this);
      this.parts.connection.start(create(client, this.logger));
    } catch (error) {
      return callback(error);
    }
    callback();
  }

  /** Before Nest closes clients and HTTP: handlers that run may need them. */
  async onModuleDestroy(): Promise<void> {
    await this.parts.connection.stop();
  }

  /** Finishes the messages that run, commits their offsets, leaves the group, and sends what is in the outbox. */
  override async close(): Promise<void> {
    await this.parts.connection.stop();
  }

  /** The client library's own consumer. @throws Error not connected yet */
  override unwrap<T>(): T {
    const { raw } = this.parts.connection;
    if (!raw) throw new Error('Not connected yet. Call startAllMicroservices() first.');
    return raw as T;
  }

  /** Nest's parser makes JSON of what looks like it, in the value too unless it is kept from it. */
  private parse(record: object, keepBinary: boolean): ReturnType<KafkaContext['getMessage']> {
    const parser = this.parser!;
    if (!keepBinary || this.settings.parser?.keepBinary) return parser.parse(record);
    const { value } = record as { value: Buffer | null };
    return { ...parser.parse({ ...record, value: null }), value };
  }

  /** What is Nest's of a server, for the parts of this one. */
  private asNestServer(): NestServer {
    return {
      patterns: () => [...this.messageHandlers.keys()],
      // Nest takes each name for JSON first, which throws.
      handlerOf: (topic) => this.messageHandlers.get(topic) ?? this.getHandlerByPattern(topic) ?? undefined,
      parse: (record, keepBinary) => this.parse(record, keepBinary),
      deserialize: (message, topic) => this.deserializer.deserialize(message, { channel: topic }),
      serialize: (response) => this.serializer.serialize(response as OutgoingResponse) as Serialized,
      toObservable: (result) => this.transformToObservable(result as never),
      onStart: (context, call) => this.onProcessingStartHook(this.transportId, context, call),
      onEnd: (context) => this.onProcessingEndHook?.(this.transportId, context),
    };
  }
}
