// people/messages/: The topics people.*: values in, replies out.
// Promises: a message is one call of PeopleService, or many are one statement; each is refused as a request would be.
// May know: the service and its store, and of messaging/ what is, or marks, a handler; not how a message came.

import { Controller, Inject, type OnModuleInit, UseFilters } from '@nestjs/common';
import { Ctx, KafkaContext, MessagePattern, Payload } from '@nestjs/microservices';
import { MessageErrorFilter } from '../../errors/error-responses.js';
import { InvalidInputError } from '../../errors/application-error.js';
import { BATCHABLE } from '../../messaging/kafka.transport.js';
import { plainText } from '../../errors/plain-text.js';
import { Transactional } from '../../transactions/transactional.decorator.js';
import { memberArray } from '../../json/array.js';
import type { JsonInput } from '../../json/input.js';
import { offerBatchHandler } from '../../messaging/consuming/batch-handlers.js';
import { BATCH_TOPICS, OPERATION, peopleBatchHandler } from './batch-handler.js';
import { MessageInputPipe, noValue, OptionalMessageInputPipe } from './input.pipe.js';
import { DEFAULT_REPLY_BYTES, PEOPLE_OPTIONS, type PeopleOptions } from '../people.options.js';
import { type IfMatch, type NewPerson, PeopleService } from '../people.service.js';
import { encodeCursor, PeopleDto, PersonIdDto, validateInput } from '../person.dto.js';
import { relocate } from '../../json/refusals.js';
import { pageJsonWithin, personJson } from '../person.entity.js';
import { personElements } from '../person-limits.js';

/** No parser is to change a number, whatever the application's other handlers are given. */
const BYTES = { keepBinary: true };
const WRITES = { ...BATCHABLE, ...BYTES };

/**
 * The topics `people.*`: each is request-reply when the message asks for a reply, else fire-and-forget. Replies are JSON
 * text, for a serializer would change numbers. Pipe and filter are bound here because a hybrid application does not hand
 * its global ones to message handlers.
 */
@Controller()
@UseFilters(MessageErrorFilter)
export class PeopleMessagesController implements OnModuleInit {
  constructor(
    @Inject(PeopleService) private readonly people: PeopleService,
    @Inject(PEOPLE_OPTIONS) private readonly options: PeopleOptions,
  ) {}

  /** For transports that take batch handlers. */
  onModuleInit(): void {
    const handler = peopleBatchHandler(this.people, this.options);
    offerBatchHandler(this.people.store.dataSource, BATCH_TOPICS, handler);
  }

  /**
   * The same operations on one topic, where Kafka keeps what happens to a person in order: key = the person's id, header
   * `people-operation` = `create`, `update`, …
   */
  @MessagePattern('people.commands', { ...WRITES, digestHeaders: [OPERATION] })
  @Transactional()
  async command(
    @Payload(OptionalMessageInputPipe) input: JsonInput | null,
    @Ctx() context: KafkaContext,
  ): Promise<string | null> {
    const { headers = {}, key } = context.getMessage() as unknown as CommandMessage;
    if (input === null) return this.remove(this.tombstone(key));
    const name = plainText(headers[OPERATION]);
    const operation = OPERATIONS.get(name);
    if (!operation)
      throw new InvalidInputError(
        `The header ${OPERATION} must be one of ${[...OPERATIONS.keys()].join(', ')}, not ${name}.`,
      );
    return this[operation](input);
  }

  @MessagePattern('people.create', WRITES)
  @Transactional()
  async create(@Payload(MessageInputPipe) input: JsonInput): Promise<string> {
    return personJson(await this.people.create(input as unknown as NewPerson));
  }

  @MessagePattern('people.create-many', WRITES)
  @Transactional()
  async createMany(@Payload(MessageInputPipe) input: JsonInput): Promise<string> {
    const { ids = false } = validateInput(PeopleDto, input);
    const people = memberArray(input, 'people', personElements(this.options)) as Iterable<unknown>;
    try {
      return JSON.stringify(await this.people.createEach(people as Iterable<NewPerson>, { ids }));
    } catch (error) {
      throw relocate(error, /^#(?=\/\d)/, '#/people');
    }
  }

  private tombstone(key: unknown): JsonInput {
    if (this.options.tombstones !== 'delete') throw noValue();
    return { id: String(key) };
  }

  @MessagePattern('people.get', BYTES)
  async get(@Payload(MessageInputPipe) input: JsonInput): Promise<string> {
    const { id } = validateInput(PersonIdDto, input);
    return personJson(await this.people.get(id));
  }

  @MessagePattern('people.find-by-name', BYTES)
  async findByName(@Payload(MessageInputPipe) { name, ...page }: JsonInput): Promise<string> {
    const { replyBytes: bytes = DEFAULT_REPLY_BYTES } = this.options;
    const people = await this.people.findByName(name as string, page, { bytes });
    return pageJsonWithin(people, bytes, encodeCursor);
  }

  @MessagePattern('people.update', WRITES)
  @Transactional()
  async update(@Payload(MessageInputPipe) { id, ifMatch, ...changes }: JsonInput): Promise<string> {
    const person = await this.people.update(id as string, changes, ifMatchOf(ifMatch));
    return personJson(person);
  }

  @MessagePattern('people.delete', WRITES)
  @Transactional()
  async remove(@Payload(MessageInputPipe) { ifMatch, ...rest }: JsonInput): Promise<null> {
    const { id } = validateInput(PersonIdDto, rest);
    await this.people.remove(id, ifMatchOf(ifMatch));
    return null;
  }
}

interface CommandMessage {
  key: unknown;
  headers?: Record<string, unknown>;
}

const OPERATIONS = new Map<string, 'create' | 'createMany' | 'get' | 'findByName' | 'update' | 'remove'>([
  ['create', 'create'],
  ['create-many', 'createMany'],
  ['get', 'get'],
  ['find-by-name', 'findByName'],
  ['update', 'update'],
  ['delete', 'remove'],
]);

const ifMatchOf = (ifMatch: unknown): IfMatch =>
  ifMatch === undefined ? {} : { ifMatch: ifMatch as string };
