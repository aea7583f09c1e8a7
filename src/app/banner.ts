import type { Service } from './start-service.js';

/** One screen: where everything is, and three commands to try. */
export function banner({ http, databaseUrl, kafkaBrokers }: Service): string {
  const id = '00000000-0000-4000-8000-000000000001';
  const [broker] = kafkaBrokers;
  const kafka = broker
    ? [`  Kafka     ${kafkaBrokers.join(', ')}   topics people.create, people.get, …`]
    : ['  Kafka     off'];
  const message = broker
    ? [`  KAFKA_BROKERS=${broker} node examples/send-message.mjs people.get '{"id":"${id}"}'`]
    : [];
  return [
    '',
    `  People is running.`,
    '',
    `  HTTP      ${http}/people`,
    `  Docs      ${http}/docs`,
    `  Database  ${databaseUrl}`,
    ...kafka,
    '',
    '  Try:',
    `  curl -s ${http}/people -H 'content-type: application/json' -d '{"id":"${id}","name":"Ada","data":{"n":18446744073709551615}}'`,
    ...message,
    `  psql '${databaseUrl}' -c 'select * from people'`,
    '',
    '  Ctrl-C stops all of it; the data stays in .data/',
    '',
  ].join('\n');
}
