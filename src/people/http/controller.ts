// people/http/: The routes of /people: bodies in, answers out, ETags, idempotency keys, OpenAPI.
// Promises: a request is one call of PeopleService; what it takes of memory is counted in the budget until it is sent.
// May know: the service, and importing/ for uploads.

import {
  Controller,
  Delete,
  Get,
  Header,
  Headers,
  HttpCode,
  Inject,
  Param,
  Patch,
  Post,
  Query,
  Req,
  Res,
  StreamableFile,
  UseFilters,
  UseGuards,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { Readable } from 'node:stream';
import { ProblemDetailsFilter } from '../../errors/error-responses.js';
import { Inbox } from '../../messaging/inbox.js';
import { assertRoomToWrite, holdUntilSent, holdWritten, roomUntilSent } from './answer-room.js';
import { ByteBudget } from '../byte-budget.js';
import { type CallerOf, callerOfUser } from './caller.js';
import { etagOf, identityOfRequest, matchesAny, toIfMatch } from './preconditions.js';
import { asJson, asStream } from './enveloped.js';
import { DEFAULT_IDLE_MS, ImportStalledError } from '../importing/pace.js';
import {
  type BodyBytes,
  bodyBytes,
  type BodyRequest,
  bodyStream,
  mediaTypeOf,
  pathOf,
  RawBodyOf,
} from '../../json/body.decorator.js';
import { jsonArray } from '../../json/array.js';
import { readJsonObject } from '../../json/input.js';
import { idsOf, KnownAddressGuard, TakesQuery } from './known-address.guard.js';
import { NDJSON, NdjsonReader } from '../../json/ndjson.js';
import {
  DocumentCreate,
  DocumentCreateMany,
  DocumentFind,
  DocumentGet,
  DocumentPeople,
  DocumentRemove,
  DocumentUpdate,
} from './openapi.js';
import { PEOPLE_OPTIONS, type PeopleOptions } from '../people.options.js';
import { type NewPerson, PeopleService, type PersonChanges } from '../people.service.js';
import { pageJson, type Person, personJson } from '../person.entity.js';
import { INPUT_MEMBERS } from '../person.dto.js';
import { personElements, personLimits } from '../person-limits.js';
import { TakesBody } from './request-body.js';
import { Upload } from './upload.js';

const JSON_TYPE = 'application/json';
const MERGE_PATCH = 'application/merge-patch+json';
const ANSWERS_JSON = Header('content-type', 'application/json; charset=utf-8');

/** The routes of `/people`: each turns a request into one call of PeopleService and its result into an answer. */
@Controller('people')
@UseFilters(ProblemDetailsFilter)
@UseGuards(KnownAddressGuard)
@DocumentPeople()
export class PeopleHttpController {
  constructor(
    private readonly people: PeopleService,
    private readonly inbox: Inbox,
    @Inject(HttpAdapterHost) private readonly adapterHost: HttpAdapterHost,
    @Inject(PEOPLE_OPTIONS) private readonly options: PeopleOptions,
    private readonly budget: ByteBudget,
  ) {}

  @Post()
  @TakesBody([JSON_TYPE])
  @ANSWERS_JSON
  @DocumentCreate()
  async create(
    @RawBodyOf([JSON_TYPE]) body: BodyBytes,
    @Req() request: BodyRequest,
    @Headers('idempotency-key') idempotencyKey: string | undefined,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<string> {
    const input = readJsonObject(body, 'the body', INPUT_MEMBERS);
    const create = async () => {
      const { person, created } = await this.people.createIfAbsent(input as unknown as NewPerson);
      return { created, id: person.id, etag: etagOf(person), json: personJson(person) };
    };
    const identity = this.identityOf('POST /people', idempotencyKey, body, request);
    const { value, isFirst } = identity
      ? await this.inbox.once(identity, {}, create)
      : { value: await create(), isFirst: true };
    if (!value.created || !isFirst) this.adapter.status(response, 200);
    this.adapter.setHeader(response, 'location', `${pathOf(request)}/${value.id}`);
    this.adapter.setHeader(response, 'etag', value.etag);
    return asJson(response, holdWritten(this.budget, response, value.json));
  }

  @Post('bulk')
  @TakesBody([JSON_TYPE, NDJSON], { isBulk: true })
  @TakesQuery('ids')
  @ANSWERS_JSON
  @DocumentCreateMany()
  async createMany(
    @Req() request: BodyRequest,
    @Headers('idempotency-key') idempotencyKey: string | undefined,
    @Query('ids') wantsIds: string | undefined,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<string> {
    const isStream = mediaTypeOf(request) === NDJSON;
    const ids = idsOf(wantsIds, isStream);
    if (isStream) return this.importMany(request, response);
    const body = bodyBytes(request);
    const people = jsonArray(body, { what: 'the body', pointer: '#', ...personElements(this.options) });
    const create = () =>
      this.people.createEach(people as AsyncIterable<unknown> as AsyncIterable<NewPerson>, { ids });
    const identity = this.identityOf('POST /people/bulk', idempotencyKey, body, request);
    if (!identity) return asJson(response, JSON.stringify(await create()));
    const { value, isFirst } = await this.inbox.once(identity, {}, create);
    if (!isFirst) this.adapter.status(response, 200);
    return asJson(response, JSON.stringify(value));
  }

  @Get(':id')
  @ANSWERS_JSON
  @DocumentGet()
  async get(
    @Param('id') id: string,
    @Headers('if-none-match') ifNoneMatch: string | undefined,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<string | undefined> {
    const person = await this.people.get(id);
    const answer = holdUntilSent(this.budget, response, this.answer(response, person));
    if (ifNoneMatch === undefined || !matchesAny(ifNoneMatch, person)) return asJson(response, answer);
    this.adapter.status(response, 304);
    return undefined;
  }

  @Get()
  @TakesQuery('name', 'limit', 'cursor')
  @DocumentFind()
  async findByName(
    @Query('name') name: string,
    @Query('limit') limit: string | undefined,
    @Query('cursor') cursor: string | undefined,
    @Headers('accept') accept: string | undefined,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<string | StreamableFile> {
    if (accept?.includes(NDJSON)) return this.streamByName(name, response);
    const size =
      limit === undefined ? undefined : /^\d+$/.test(limit) ? Number(limit) : (limit as unknown as number);
    const page = { ...(size !== undefined && { limit: size }), ...(cursor !== undefined && { cursor }) };
    const people = await this.people.findByName(name, page);
    this.adapter.setHeader(response, 'Content-Type', 'application/json; charset=utf-8');
    return asJson(response, holdUntilSent(this.budget, response, pageJson(people)));
  }

  @Patch(':id')
  @TakesBody([JSON_TYPE, MERGE_PATCH])
  @ANSWERS_JSON
  @DocumentUpdate()
  async update(
    @Param('id') id: string,
    @RawBodyOf([JSON_TYPE, MERGE_PATCH]) body: BodyBytes,
    @Req() request: BodyRequest,
    @Headers('if-match') ifMatch: string | undefined,
    @Res({ passthrough: true }) response: unknown,
  ): Promise<string | undefined> {
    const changes = readJsonObject(body, 'the body', INPUT_MEMBERS) as PersonChanges;
    assertRoomToWrite(this.budget);
    const merge = mediaTypeOf(request) === MERGE_PATCH;
    const person = await this.people.update(id, changes, { ...toIfMatch(ifMatch), merge });
    const answer = this.answer(response, person);
    const { mayRead = () => true } = this.options;
    if (mayRead(request)) return asJson(response, holdWritten(this.budget, response, answer));
    // Else a change of nothing would read the person.
    this.adapter.status(response, 204);
    return undefined;
  }

  @Delete(':id')
  @HttpCode(204)
  @DocumentRemove()
  remove(@Param('id') id: string, @Headers('if-match') ifMatch: string | undefined): Promise<void> {
    return this.people.remove(id, toIfMatch(ifMatch));
  }

  private get adapter() {
    return this.adapterHost.httpAdapter;
  }

  /** What makes a request one that was there before; undefined without an `Idempotency-Key`. */
  private identityOf(route: string, key: string | undefined, body: Uint8Array, request: BodyRequest) {
    if (key === undefined) return undefined;
    const { caller = callerOfUser as CallerOf } = this.options;
    return identityOfRequest(route, key, body, caller(request));
  }

  private async importMany(request: BodyRequest, response: unknown): Promise<string> {
    const upload = new Upload(bodyStream(request), this.budget);
    const people = new NdjsonReader(upload.stream, INPUT_MEMBERS, personLimits(this.options).line);
    const { importIdleMs: idleMs = DEFAULT_IDLE_MS } = this.options;
    try {
      const persons = people as unknown as AsyncIterable<NewPerson>;
      const imported = await this.people.importMany(persons, { idleMs, source: upload });
      return asJson(response, JSON.stringify(imported));
    } catch (error) {
      // What comes of the body is not waited for any longer.
      if (error instanceof ImportStalledError) this.adapter.setHeader(response, 'Connection', 'close');
      throw people.locate(error);
    } finally {
      upload.end();
    }
  }

  private answer(response: unknown, person: Person): string {
    this.adapter.setHeader(response, 'etag', etagOf(person));
    return personJson(person);
  }

  /** The first page is read before the answer begins, so that bad input is still answered as such. */
  private async streamByName(name: string, response: unknown): Promise<StreamableFile> {
    // For all its time, so that an answer that has begun need not wait for room.
    await roomUntilSent(this.budget, response, this.people.exportBytes);
    const people = this.people.streamByName(name);
    const first = await people.next();
    async function* lines() {
      if (first.done) return;
      yield `${personJson(first.value)}\n`;
      for await (const person of people) yield `${personJson(person)}\n`;
    }
    const stream = Readable.from(lines(), { objectMode: false });
    return asStream(this.adapter, response, new StreamableFile(stream, { type: NDJSON }));
  }
}
