import pg from 'pg';
import { placeOf, urlsOfHosts, withoutPassword } from '../../src/database/database-url.js';

/** What pg makes of the URL of each host. */
const read = (url: string) =>
  urlsOfHosts(url).map((each) => {
    const { host, port, user, password, database } = new pg.Client(each);
    return `${user} ${password} ${host} ${port} ${database}`;
  });

it.each<[string, string[]]>([
  ['postgres://u:p@h1:1,h2:2/d', ['u p h1 1 d', 'u p h2 2 d']],
  ['postgresql://u:p@h1,h2:2,h3/d', ['u p h1 5432 d', 'u p h2 2 d', 'u p h3 5432 d']],
  ['postgres://u:p@[::1]:1,[2001:db8::2],10.0.0.3:3/d', ['u p ::1 1 d', 'u p 2001:db8::2 5432 d', 'u p 10.0.0.3 3 d']],
  ['postgres://u%40c:p%2C%40%3A%2F%3F%23%25@h1:1,h2:2/d', ['u@c p,@:/?#% h1 1 d', 'u@c p,@:/?#% h2 2 d']],
  ['postgres://u:p,@q@h1:1,h2:2/d', ['u p,@q h1 1 d', 'u p,@q h2 2 d']],
  ['postgres://u:p@h1:1,h2:2/d%C3%BC?sslmode=disable&application_name=x', ['u p h1 1 dü', 'u p h2 2 dü']],
  ['postgres://u:p@h1,h2/d?options=-c%20search_path%3Da,b', ['u p h1 5432 d', 'u p h2 5432 d']],
  ['postgres://u:p@h1,h2/d?target_session_attrs=read-write&port=7', ['u p h1 7 d', 'u p h2 7 d']],
  ['postgres://u:p@h1,h2/d?port=7,8', ['u p h1 7 d', 'u p h2 8 d']],
  ['postgres:///d?host=h1,h2&port=1,2&user=u&password=p', ['u p h1 1 d', 'u p h2 2 d']],
  ['postgres:///d?user=u&password=p&host=/var/run/postgresql,h2', ['u p /var/run/postgresql 5432 d', 'u p h2 5432 d']],
  ['POSTGRES://u:p@h1:1, h2:2/d', ['u p h1 1 d', 'u p h2 2 d']],
])('%s names these hosts', (url, hosts) => {
  expect(read(url)).toEqual(hosts);
}); // prettier-ignore

it.each([
  'postgres://h/d',
  'postgres://u:p@[::1]:5/d?host=/tmp&x=1#f',
  'postgresql:///d',
  'postgres://u:p,q@h',
])('%s, of one host, is left as it is', (url) => expect(urlsOfHosts(url)).toEqual([url]));

it.each<[string, string, string]>([
  ['postgres://u:p@h:5/d?x=1', 'postgres://u@h:5/d?x=1', 'h:5/d'],
  ['postgres://u:s3cret@h1:1,[::2]:2/d', 'postgres://u@h1:1,[::2]:2/d', 'h1:1,[::2]:2/d'],
  ['postgres://u:a:b@c,d@h1,h2/d?password=s3cret&x=1', 'postgres://u@h1,h2/d?x=1', 'h1,h2/d'],
  [
    'postgres:///d?host=h1,h2&port=1,2&password=s3cret',
    'postgres:///d?host=h1%2Ch2&port=1%2C2',
    'h1:1,h2:2/d',
  ],
  ['postgres://u@h', 'postgres://u@h', 'h'],
])('%s is shown without its password, and its place', (url, shown, place) => {
  expect([withoutPassword(url), placeOf(url)]).toEqual([shown, place]);
});
