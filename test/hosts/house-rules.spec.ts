import {
  type ArgumentsHost,
  type CallHandler,
  Catch,
  ClassSerializerInterceptor,
  Controller,
  type ExceptionFilter,
  type ExecutionContext,
  Get,
  HttpException,
  type INestApplication,
  type NestInterceptor,
  ValidationPipe,
  VersioningType,
} from '@nestjs/common';
import { HttpAdapterHost, Reflector } from '@nestjs/core';
import { map } from 'rxjs';
import { PeopleModule } from '../../src/people/people.module.js';
import { JsonNumber } from '../../src/json/lossless.js';
import { JsonText } from '../../src/json/text.js';
import { PeopleService } from '../../src/people/people.service.js';
import { type AnyHost, startAnyHost, typeOrm } from '../support/any-host.js';
import { duringTests } from '../support/during-tests.js';
import { createDatabase } from '../support/test-database.js';
import { PLATFORMS } from '../support/transactions-host.js';

const database = duringTests(() => createDatabase());
const DATA = '{"n":18446744073709551615,"d":1.0,"e":"\\u00e9"}';

/** What many houses put around each of their answers. */
class Envelope implements NestInterceptor {
  intercept(_: ExecutionContext, next: CallHandler) {
    return next.handle().pipe(map((data: unknown) => ({ ok: true, data })));
  }
}

/** What many houses make of each error. */
@Catch()
class HouseFilter implements ExceptionFilter {
  constructor(private readonly adapterHost: HttpAdapterHost) {}
  catch(error: unknown, host: ArgumentsHost) {
    const status = error instanceof HttpException ? error.getStatus() : 500;
    this.adapterHost.httpAdapter.reply(host.switchToHttp().getResponse(), { house: status }, status);
  }
}

@Controller('own')
class OwnController {
  constructor(private readonly people: PeopleService) {}
  @Get()
  own() {
    return { n: 1, at: new Date(0) };
  }
  @Get('names')
  async names() {
    return (await this.people.findByName('Ada')).items.map(({ name }) => name);
  }
}

function houseRules(app: INestApplication): void {
  app.setGlobalPrefix('api');
  app.enableVersioning({ type: VersioningType.URI, defaultVersion: '1' });
  app.useGlobalPipes(
    new ValidationPipe({
      ...{ whitelist: true, forbidNonWhitelisted: true, transform: true, validateCustomDecorators: true },
      transformOptions: { enableImplicitConversion: true },
    }),
  );
  app.useGlobalInterceptors(new Envelope(), new ClassSerializerInterceptor(app.get(Reflector)));
  app.useGlobalFilters(new HouseFilter(app.get(HttpAdapterHost)));
}

describe.each(PLATFORMS)(
  'in a house with prefix, versions, pipe, envelope and filter of its own, on %s',
  (platform) => {
    const host: AnyHost = duringTests(() =>
      startAnyHost({
        platform,
        imports: [typeOrm(database.url), PeopleModule.forRoot({ controllers: { messages: false } })],
        controllers: [OwnController],
        prepare: houseRules,
      }),
    );
    beforeEach(() => database.query('TRUNCATE people'));

    const create = async () => {
      const created = await host.send('POST', '/api/v1/people', `{"name":"Ada","data":${DATA}}`);
      expect(created.status).toBe(201);
      return { id: created.headers.get('location')!.split('/').at(-1)!, created };
    };

    // @trap an envelope of the host's (`{ data: … }`) has answers that are JSON text encoded a second time
    it('a person is in the envelope as JSON, digit for digit, and so is a page', async () => {
      const { id, created } = await create();
      const person = `{"id":"${id}","name":"Ada","data":${DATA}}`;
      expect(created.headers.get('location')).toBe(`/api/v1/people/${id}`);
      expect(created.headers.get('content-type')).toBe('application/json; charset=utf-8');
      expect(await created.text()).toBe(`{"ok":true,"data":${person}}`);
      const found = await host.request(`/api/v1/people/${id}`);
      expect([await found.text(), found.headers.get('etag')]).toEqual([
        `{"ok":true,"data":${person}}`,
        created.headers.get('etag'),
      ]);
      const page = await host.request('/api/v1/people?name=Ada&limit=5');
      expect(await page.text()).toBe(`{"ok":true,"data":{"items":[${person}],"next":null}}`);
      const bulk = await host.send('POST', '/api/v1/people/bulk', '[{"name":"Bob"}]');
      expect(await bulk.text()).toBe('{"ok":true,"data":{"inserted":1}}');
    });

    it('what answers nothing, or a stream, is as it was', async () => {
      const { id, created } = await create();
      const etag = created.headers.get('etag')!;
      const unchanged = await host.request(`/api/v1/people/${id}`, { headers: { 'if-none-match': etag } });
      expect([unchanged.status, await unchanged.text()]).toEqual([304, '']);
      const lines = await host.request('/api/v1/people?name=Ada', {
        headers: { accept: 'application/x-ndjson' },
      });
      expect(await lines.text()).toBe(`{"id":"${id}","name":"Ada","data":${DATA}}\n`);
      const changed = await host.send('PATCH', `/api/v1/people/${id}`, '{"data":{"n":null,"e":1.50}}', 'application/merge-patch+json'); // prettier-ignore
      expect(await changed.text()).toBe(
        `{"ok":true,"data":{"id":"${id}","name":"Ada","data":{"d":1.0,"e":1.50}}}`,
      );
      expect((await host.request(`/api/v1/people/${id}`, { method: 'DELETE' })).status).toBe(204);
    });

    it('errors of people keep their own shape, and those of the house its own', async () => {
      const refused = await host.send('POST', '/api/v1/people', '{"name":5,"more":1}');
      expect([refused.status, refused.headers.get('content-type')]).toEqual([400, 'application/problem+json; charset=utf-8']); // prettier-ignore
      expect(await refused.json()).toMatchObject({ type: '/problems/invalid-input', errors: [{}, {}] });
      expect(await (await host.request('/api/v1/nothing')).json()).toEqual({ house: 404 });
      expect(await (await host.request('/api/v1/own')).text()).toBe('{"ok":true,"data":{"n":1,"at":"1970-01-01T00:00:00.000Z"}}'); // prettier-ignore
    });
  },
);

it('what a host answers with a JsonText or a JsonNumber in it is JSON, each number as the engine can write it', () => {
  const answer = { json: JsonText.of('{"text":[1.50,"\\u00e9"]}'), number: new JsonNumber('1.50') };
  const canKeep = 'rawJSON' in JSON;
  const number = canKeep ? '1.50' : '1.5';
  expect(JSON.stringify(answer)).toBe(`{"json":{"text":[${number},"é"]},"number":${number}}`);
});
