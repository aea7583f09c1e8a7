import { withoutPassword } from '../database/database-url.js';
import type { AuthSettings } from './settings.js';
import type { Services } from './services-file.js';

/** What the banner has to know beside the addresses. */
export interface BannerSettings {
  auth: AuthSettings;
  /** The database is the user's own, so its password is kept off the screen. */
  ownDatabase: boolean;
}

/** One screen: where everything is, and three commands to try. */
export function banner(
  { http, management = http, databaseUrl, kafkaBrokers }: Services,
  { auth, ownDatabase }: BannerSettings,
): string {
  // psql asks for the password then.
  const database = ownDatabase ? withoutPassword(databaseUrl) : databaseUrl;
  const withKafka = kafkaBrokers.length > 0;
  const token = auth.method === 'jwt' ? ` -H "authorization: Bearer $TOKEN"` : '';
  const body = quoted('{"name":"Ada","data":{"n":18446744073709551615}}');
  return [
    '',
    '  People is running.',
    '',
    `  HTTP      ${http}/people`,
    `  Docs      ${management}/docs`,
    `  Database  ${withoutPassword(databaseUrl)}`,
    withKafka
      ? `  Kafka     ${kafkaBrokers.join(',')}   topics people.create, people.get, …`
      : '  Kafka     off',
    '',
    '  Try:',
    `  curl -s ${http}/people -H 'content-type: application/json'${token} -d ${body}`,
    ...(withKafka ? [`  node examples/send-message.mjs people.create '{"name":"Grace"}'`] : []),
    `  psql ${quoted(database)} -c 'select * from people'`,
    '',
    '  Ctrl-C stops all of it; the data stays.',
    '',
  ].join('\n');
}

const quoted = (text: string) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
