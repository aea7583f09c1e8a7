import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { KafkaTransport } from '../../src/messaging/kafka.transport.js';

const toUrl = (module: string) => `data:text/javascript,${encodeURIComponent(module)}`;

it.each([
  ['platformatic', '@platformatic/kafka', 'npm install @platformatic/kafka@~1.35.0'],
  ['kafkajs', 'kafkajs', 'npm install kafkajs@^2.2.4'],
])(
  'a client library that is not installed is named, with how to install it: %s',
  async (client, library, install) => {
    const hook = `export const resolve = (name, context, next) => next(name === '${library}' ? '${library}-that-is-not-there' : name, context);`;
    const register = `import { register } from 'node:module'; register(${JSON.stringify(toUrl(hook))});`;
    const script = `const { driverFactory } = await import('./dist/src/messaging/kafka/clients.js'); await driverFactory('${client}');`;
    const run = promisify(execFile)(process.execPath, ['--import', toUrl(register), '--input-type=module', '-e', script]); // prettier-ignore
    await expect(run).rejects.toThrow(install);
  },
);

it('a transport whose driver can not be made fails to start', async () => {
  const transport = new KafkaTransport({
    client: { brokers: ['localhost:1'] },
    groupId: 'none',
    concurrency: 1,
    topics: { partitions: 1, replication: undefined },
    driver: () => {
      throw new Error('no driver');
    },
  });
  const error = await new Promise((resolve) => void transport.listen(resolve));
  expect(error).toEqual(new Error('no driver'));
  await transport.close();
});
