import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

interface Schema {
  $ref?: string;
  type?: string | string[];
  nullable?: boolean;
  example?: unknown;
  properties?: Record<string, Schema>;
  items?: Schema;
}
type Content = Record<string, { schema: Schema }>;
interface Operation {
  summary?: string;
  requestBody?: { content: Content };
  responses: Record<string, { description: string; content?: Content; headers?: object }>;
  security?: object[];
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

let document: Document;
const app = duringTests(() => startPeopleApp());
beforeAll(async () => {
  document = (await (await app.request('/docs-json')).json()) as Document;
});

const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ route: `${method} ${path}`, path, operation })),
  );

/** The example that the documentation shows for a schema. */
function exampleOf({ $ref, example, properties, items }: Schema): unknown {
  if ($ref) return exampleOf(document.components.schemas[$ref.split('/').at(-1)!]!);
  if (example !== undefined) return example;
  if (items) return [exampleOf(items)];
  const members = Object.entries(properties ?? {}).map(([name, schema]) => [name, exampleOf(schema)]);
  return Object.fromEntries(members);
}

describe('the documentation', () => {
  it('is a page at /docs', async () => {
    const response = await app.request('/docs');
    expect([response.status, response.headers.get('content-type')]).toEqual([
      200,
      expect.stringContaining('text/html'),
    ]);
    const page = await response.text();
    const script = /src="([^"]*swagger-ui-bundle\.js)"/.exec(page)?.[1];
    const asset = await fetch(new URL(script!, `${app.url}/docs`));
    expect(asset.status).toBe(200);
    await asset.text();
  });

  it('is OpenAPI 3.1 with every route there is and what each answers, errors too', () => {
    expect(document.openapi).toMatch(/^3\.1\.\d$/);
    const statuses = operations().map(({ route, operation }) => [
      route,
      Object.keys(operation.responses).sort(),
    ]);
    const guarded = ['401', '403'];
    const ofAct = ['400', ...guarded, '408', '413', '415'];
    expect(Object.fromEntries(statuses)).toEqual({
      'post /people': ['200', '201', '400', ...guarded, '408', '409', '413', '415', '503'],
      'get /people': ['200', '400', ...guarded, '503'],
      'post /people/bulk': ['201', '400', ...guarded, '408', '409', '413', '415', '503'],
      'get /people/{id}': ['200', '304', '400', ...guarded, '404', '503'],
      'patch /people/{id}': ['200', '204', '400', ...guarded, '404', '408', '412', '413', '415', '503'],
      'delete /people/{id}': ['204', '400', ...guarded, '404', '409', '412', '503'],
      'get /health/live': ['200'],
      'get /health/ready': ['200', '400', '503'],
      'get /metrics': ['200'],
      'get /messages/dead-letters': ['200', '400', ...guarded, '503'],
      'get /messages/dead-letters/{seq}': ['200', '400', ...guarded, '404', '503'],
      'post /messages/dead-letters/{seq}/replay': ['200', ...ofAct, '404', '409', '503'].sort(),
      'post /messages/dead-letters/{seq}/correct': ['200', ...ofAct, '404', '409', '503'].sort(),
      'post /messages/dead-letters/{seq}/discard': ['200', ...ofAct, '404', '409', '503'].sort(),
      'get /messages/waiting-keys': ['200', '400', ...guarded, '503'],
      'post /messages/waiting-keys/release': ['200', ...ofAct, '404', '503'].sort(),
      'get /messages/replays': ['200', '400', ...guarded, '503'],
      'post /messages/replays': ['200', ...ofAct, '409', '503'].sort(),
      'post /messages/replays/{id}/cancel': ['200', ...ofAct, '404', '503'].sort(),
      'get /logs/level': ['200', '400', ...guarded],
      'post /logs/level': ['200', ...ofAct].sort(),
      'get /messages/audit': ['200', '400', ...guarded, '503'],
    });
  });

  it('tells every route in a sentence, and every error of people as a problem', () => {
    for (const { route, path, operation } of operations()) {
      expect([route, operation.summary]).toEqual([route, expect.stringMatching(/^[A-Z]/)]);
      if (!path.startsWith('/people')) continue;
      for (const [status, { description, content }] of Object.entries(operation.responses)) {
        if (Number(status) < 400) continue;
        const types = Object.keys(content ?? {});
        expect([route, status, types]).toEqual([route, status, ['application/problem+json']]);
        expect(description).not.toBe('');
      }
    }
  });

  it('names only schemas that it has, and says null as OpenAPI 3.1 does', () => {
    const text = JSON.stringify(document);
    const named = [...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name!);
    expect(named.filter((name) => !(name in document.components.schemas))).toEqual([]);
    // `nullable` was OpenAPI 3.0's; 3.1 ignores it.
    expect(text).not.toContain('"nullable"');
  });

  it('has examples that the routes take as they are', async () => {
    const bodyOf = (route: string) => {
      const { operation } = operations().find((each) => each.route === route)!;
      return JSON.stringify(exampleOf(operation.requestBody!.content['application/json']!.schema));
    };
    const person = bodyOf('post /people');
    const created = await app.send('POST', '/people', person);
    expect([person, created.status]).toEqual([expect.stringContaining('Ada'), 201]);
    const stored = (await created.json()) as { id: string };
    const { operation } = operations().find(({ route }) => route === 'post /people')!;
    expect(stored).toEqual(exampleOf(operation.responses['201']!.content!['application/json']!.schema));
    const patched = await app.send('PATCH', `/people/${stored.id}`, bodyOf('patch /people/{id}'));
    expect(patched.status).toBe(200);
    const removed = await app.request(`/people/${stored.id}`, { method: 'DELETE' });
    expect(removed.status).toBe(204);
    expect((await app.send('POST', '/people/bulk', bodyOf('post /people/bulk'))).status).toBe(201);
  });
});
