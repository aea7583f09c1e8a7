import { managementUrlOf } from '../../src/app/http/operations-access.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';

const OPERATIONS = ['/metrics', '/docs', '/docs/swagger-ui.css', '/docs-json', '/docs-yaml'];

it.each([
  ['with AUTH=jwt', { AUTH: 'jwt', AUTH_SECRET: 's'.repeat(32) }],
  ['with AUTH=none', { AUTH: 'none' }],
])('a management port has metrics, documentation and reasons to itself, %s', async (_title, auth) => {
  const app: PeopleApp = await startPeopleApp({ MANAGEMENT_PORT: '0', ...auth });
  const url = managementUrlOf(app.app.getHttpAdapter().getInstance())!;
  const answers = async (base: string, paths: string[]) =>
    Promise.all(paths.map(async (path) => [path, (await fetch(base + path)).status]));
  expect(new URL(url).port).not.toBe(new URL(app.url).port);
  expect(await answers(url, OPERATIONS)).toEqual(OPERATIONS.map((path) => [path, 200]));
  expect(await answers(app.url, [...OPERATIONS, '/logs/level'])).toEqual(
    [...OPERATIONS, '/logs/level'].map((path) => [path, 404]),
  );
  expect(await answers(url, ['/logs/level'])).toEqual([['/logs/level', auth.AUTH === 'none' ? 200 : 401]]);
  expect(await (await fetch(`${url}/health/ready`)).json()).toMatchObject({
    details: { people: { status: 'up' } },
  });
  expect(await (await fetch(`${app.url}/health/ready`)).json()).toEqual({ status: 'ok' });
  // Nobody is asked for a token there, so there are no people.
  const theirs = ['/people?name=a', '/people/01938c5e-7a1b-7c3d-9e2f-ffffffffffff', '//people?name=a'];
  expect(await answers(url, theirs)).toEqual(theirs.map((path) => [path, 404]));
  const created = await fetch(`${url}/people`, {
    method: 'POST',
    body: '{"name":"Eve"}',
    headers: { 'content-type': 'application/json' },
  });
  expect(created.status).toBe(404);
  expect(await app.database.query('SELECT count(*)::int AS n FROM people')).toEqual([{ n: 0 }]);
  await app.close();
  await expect(fetch(`${url}/health/live`)).rejects.toThrow('fetch failed');
});
