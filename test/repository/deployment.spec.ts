import { readFileSync, statSync } from 'node:fs';
import { load, loadAll } from 'js-yaml';
import { VARIABLES } from '../../src/app/environment-variables.js';
import { KAFKA_VERSION } from '../../src/dev/kafka-jars.js';

interface Service {
  image?: string;
  environment?: Record<string, string>;
  restart?: string;
  stop_grace_period?: string;
  volumes?: string[];
}
interface Manifest {
  kind: string;
  spec: {
    template: {
      spec: {
        terminationGracePeriodSeconds: number;
        containers: { env: { name: string; value?: string }[] }[];
      };
    };
  };
}

const { services } = load(readFileSync('docker-compose.yml', 'utf8')) as {
  services: Record<string, Service>;
};
const manifests = loadAll(readFileSync('docs/operations/kubernetes.yml', 'utf8')) as Manifest[];
const { spec: pod } = manifests.find(({ kind }) => kind === 'Deployment')!.spec.template;

/** Names of the service's settings; a secret may be in a file. */
const SETTINGS = Object.entries(VARIABLES).flatMap(([name, variable]) =>
  'secret' in variable && variable.secret ? [name, `${name}_FILE`] : [name],
);
const SECRETS = Object.entries(VARIABLES).flatMap(([name, variable]) =>
  'secret' in variable && variable.secret ? [name] : [],
);

it.each([
  ['docker-compose.yml', Object.entries(services['people']!.environment!)],
  ['kubernetes.yml', pod.containers[0]!.env.map(({ name, value = '' }): [string, string] => [name, value])],
])('%s sets what the service reads, and holds no secret', (_, settings) => {
  expect(settings.map(([name]) => name).filter((name) => !SETTINGS.includes(name))).toEqual([]);
  // An address of keys is one only where a password is in it.
  const isSecret = ([name, value]: [string, string]) =>
    SECRETS.includes(name) && !/^https:\/\/[^@]*$/.test(value);
  expect(settings.filter(isSecret)).toEqual([]);
});

it('there is one version of Kafka: the one that is tested', () => {
  expect(services['kafka']!.image).toBe(`apache/kafka:${KAFKA_VERSION}`);
});

it('who stops a container waits longer than stopping may take', () => {
  const { default: shutdownMs } = VARIABLES.SHUTDOWN_TIMEOUT_MS;
  for (const seconds of [
    Number.parseInt(services['people']!.stop_grace_period!),
    pod.terminationGracePeriodSeconds,
  ])
    expect(seconds * 1000).toBeGreaterThan(shutdownMs);
});

it('each container that is to run is started again, and what it is given is there', () => {
  const lasting = Object.entries(services).filter(([name]) => name !== 'secrets');
  expect(lasting.filter(([, { restart }]) => restart !== 'unless-stopped').map(([name]) => name)).toEqual([]);
  const files = lasting.flatMap(([, { volumes = [] }]) =>
    volumes.filter((volume) => volume.startsWith('./')),
  );
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) expect(() => statSync(file.split(':')[0]!)).not.toThrow();
});
