import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** The user that the application under test logs in as. */
export const SERVICE_USER = { username: 'service', password: 'of-the-service' };

/** Ports of a node. */
export interface Listeners {
  /** Where a client is a super user without a name. */
  plain: number;
  /** Where it logs in. */
  sasl: number;
  controller: number;
  /** Where it logs in over TLS. */
  secure?: { port: number; keyStore: string };
}

/** Properties of a node that lets clients in by these. */
export function withLogin({ plain, sasl, controller, secure }: Listeners): Record<string, string> {
  const doors = [`PLAINTEXT://127.0.0.1:${plain}`, `SASL://127.0.0.1:${sasl}`];
  if (secure) doors.push(`SECURE://127.0.0.1:${secure.port}`);
  const login = `org.apache.kafka.common.security.plain.PlainLoginModule required user_${SERVICE_USER.username}="${SERVICE_USER.password}";`;
  return {
    listeners: [...doors, `CONTROLLER://127.0.0.1:${controller}`].join(','),
    'advertised.listeners': doors.join(','),
    'listener.security.protocol.map':
      'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SECURE:SASL_SSL',
    'sasl.enabled.mechanisms': 'PLAIN',
    'listener.name.sasl.plain.sasl.jaas.config': login,
    ...(secure && {
      'listener.name.secure.plain.sasl.jaas.config': login,
      'listener.name.secure.ssl.keystore.type': 'PEM',
      'listener.name.secure.ssl.keystore.location': secure.keyStore,
    }),
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    // Who has not logged in, as the nodes among themselves.
    'super.users': 'User:ANONYMOUS',
  };
}

/** A certificate for this machine that has signed itself. */
export function certify(directory: string): { keyStore: string; authority: string } {
  const [key, authority] = ['key.pem', 'authority.pem'].map((name) => path.join(directory, name)) as [
    string,
    string,
  ];
  const keyStore = path.join(directory, 'key-store.pem');
  const arguments_ = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', authority]; // prettier-ignore
  execFileSync('openssl', arguments_, { stdio: 'ignore' });
  writeFileSync(keyStore, readFileSync(key, 'utf8') + readFileSync(authority, 'utf8'));
  return { keyStore, authority: readFileSync(authority, 'utf8') };
}
