import { isIPv6 } from 'node:net';

/** Scheme and user, hosts, and what follows. The user ends with the last @, as in a URL of one host. */
const PARTS = /^(postgres(?:ql)?:\/\/(?:[^/?#]*@)?)([^/?#@]*)([^]*)$/i;

/**
 * The URLs of the hosts that a database URL names, in its order: `postgres://user@h1:5432,h2/name`, or `?host=h1,h2&port=5432`, as
 * in libpq. Each is one that pg understands; with one host it is the URL itself.
 *
 * @throws TypeError it is no URL of a database; its text, which may hold a password, is not in the message
 */
export function urlsOfHosts(url: string): string[] {
  const [, before = '', hosts = '', after = ''] = PARTS.exec(url) ?? [];
  const parameters = new URLSearchParams(queryOf(after));
  const names = listOf(parameters.get('host'));
  const ports = listOf(parameters.get('port'));
  const isInQuery = names.length > 1;
  const places = isInQuery ? names.map(() => hosts) : listOf(hosts);
  const urls = places.map((place, index) => {
    const own = new URLSearchParams(parameters);
    if (isInQuery) own.set('host', names[index]!);
    if (ports.length > 1) own.set('port', ports[index] ?? '');
    return `${before}${place}${isInQuery || ports.length > 1 ? withQuery(after, own) : after}`;
  });
  const isComplete = places.length === 1 || !(isInQuery ? names : places).includes('');
  const isMatched = ports.length <= 1 || ports.length === places.length;
  if (before === '' || !isComplete || !isMatched || !urls.every((each) => URL.canParse(each)))
    throw new TypeError('Not the URL of a database.');
  return urls;
}

/** The startup options that a database URL names (`?options=-c search_path=crm`), and the URL without them. */
export function apartFromOptions(url: string): { url: string; options: string | null } {
  const parameters = new URLSearchParams(queryOf(url));
  const options = parameters.get('options');
  if (options === null) return { url, options };
  parameters.delete('options');
  return { url: withQuery(url, parameters).replace(/\?$/, ''), options };
}

const queryOf = (after: string) => /\?([^#]*)/.exec(after)?.[1] ?? '';
const withQuery = (after: string, query: URLSearchParams) =>
  after.replace(/\?[^#]*/, () => `?${String(query)}`);
const listOf = (text: string | null) => text?.split(',').map((item) => item.trim()) ?? [];

/** Where a database URL of one host leads: host and port as they are told. */
export function hostOf(url: string): string {
  const { host, searchParams } = new URL(url);
  const [name, port] = [searchParams.get('host'), searchParams.get('port')];
  if (name === null && port === null) return host;
  return `${name ?? new URL(url).hostname}${port ? `:${port}` : ''}`;
}

/** Where a database URL leads, for people to read: `h1:5432,h2:5432/name`. @throws TypeError as urlsOfHosts() */
export function placeOf(url: string): string {
  const urls = urlsOfHosts(url);
  return `${urls.map(hostOf).join(',')}${new URL(urls[0]!).pathname}`;
}

/** A database URL that may be shown. @throws TypeError as urlsOfHosts() */
export function withoutPassword(url: string): string {
  urlsOfHosts(url);
  const [, before = '', hosts = '', after = ''] = PARTS.exec(url)!;
  const parameters = new URLSearchParams(queryOf(after));
  if (!parameters.has('password')) return `${withoutSecret(before)}${hosts}${after}`;
  parameters.delete('password');
  return `${withoutSecret(before)}${hosts}${withQuery(after, parameters).replace(/\?$/, '')}`;
}

const withoutSecret = (before: string) => before.replace(/^(\w+:\/\/[^:@]*):.*@$/, '$1@');

/**
 * The hosts of a list as they stand in a database URL: names, addresses (of IPv6 with or without brackets) or directories of Unix
 * sockets, separated by commas, each with a port or without.
 *
 * @param port of those that have none
 * @returns undefined when it is no such list
 */
export function hostsOfList(list: string, port: number): string[] | undefined {
  const hosts = list.split(',').map((item) => hostOfItem(item.trim(), port));
  return hosts.every((host) => host !== undefined) ? hosts : undefined;
}

function hostOfItem(item: string, port: number): string | undefined {
  if (isAddress6(item)) return `[${item}]:${port}`;
  const [, address, name = '', own = String(port)] =
    /^(?:\[(.*)\]|([^\s:@?#[\]]+))(?::(\d+))?$/.exec(item) ?? [];
  if (address !== undefined ? !isAddress6(address) : name === '') return undefined;
  if (Number(own) < 1 || Number(own) > 65535) return undefined;
  return `${address === undefined ? encodeURIComponent(name) : `[${address}]`}:${own}`;
}

/** A zone (`fe80::1%eth0`) has no place in a URL. */
const isAddress6 = (text: string) => isIPv6(text) && !text.includes('%');
