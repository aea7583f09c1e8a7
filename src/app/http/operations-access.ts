import { once } from 'node:events';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { NotFoundException } from '@nestjs/common';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { BearerTokenException, type TokenVerifier } from './bearer-tokens.js';
import type { HttpFront } from './front.js';

/** The one route of readiness, and those that are for the people on call alone. */
const READINESS = '/health/ready';
const isForOperators = (route: string) =>
  route === '/metrics' || /^\/(docs|messages|logs|console)\b/.test(route);
/** Those of them that the guard of tokens asks for a scope. */
const isGuarded = (route: string) => /^\/(messages|logs)\b/.test(route);
/** People are answered there to who brings a token alone: nobody else is asked for one. */
const isLookAtPeople = (method: string, route: string) =>
  (method === 'GET' || method === 'HEAD') && /^\/people\b/.test(route);

/** The requests that came by the management port, and those whose sender may read why something is not ready. */
const managed = new WeakSet<IncomingMessage>();
const trusted = new WeakSet<IncomingMessage>();

/** Whether the sender of a request may read why the service is not ready. */
export const mayReadReasons = ({ raw }: FastifyRequest): boolean => trusted.has(raw);

/** Where operators come in, and how they are known. */
export interface OperationsDoors {
  verify: TokenVerifier | undefined;
  hasManagementPort: boolean;
  /** The management port is reached from elsewhere, where people are not, and nobody is asked for a token. */
  isOpenToStrangers: boolean;
}

/**
 * Keeps metrics, documentation and the reasons of readiness from strangers: they are for whoever reaches the management port,
 * or has a valid token where there is none, and for everybody where nobody is asked who they are.
 */
export function guardOperations(
  fastify: FastifyInstance,
  { verify, hasManagementPort, isOpenToStrangers }: OperationsDoors,
): void {
  fastify.addHook('onRequest', (request, reply, done) => {
    const { raw, method, url, routeOptions } = request;
    // The route, not the path: what the router takes for one is one.
    const route = routeOptions.url ?? '';
    const isTheirs = isForOperators(route);
    const answerAbsent = () => done(new NotFoundException(`Cannot ${method} ${url}`));
    if (managed.has(raw)) {
      const isKnown = verify !== undefined && raw.headers.authorization !== undefined;
      const isAllowed =
        isTheirs || route.startsWith('/health/') || (isKnown && isLookAtPeople(method, route));
      if (!isAllowed || (isOpenToStrangers && isGuarded(route))) return answerAbsent();
      trusted.add(raw);
    } else if (hasManagementPort) {
      if (isTheirs) return answerAbsent();
    } else if (!verify) {
      if (route === READINESS) trusted.add(raw);
    } else if (isTheirs && !isGuarded(route)) {
      verify(raw.headers.authorization).then(
        () => done(),
        (error: Error) => {
          if (error instanceof BearerTokenException) reply.header('WWW-Authenticate', error.challenge);
          done(error);
        },
      );
      return;
    } else if (route === READINESS && raw.headers.authorization !== undefined) {
      // Probes are answered, whatever they bring.
      verify(raw.headers.authorization).then(
        () => (trusted.add(raw), done()),
        () => done(),
      );
      return;
    }
    done();
  });
}

const servers = new WeakMap<FastifyInstance, Server>();

/** Opens the management port with the application's own, and closes it with it. */
export function openManagementPort(
  fastify: FastifyInstance,
  front: HttpFront,
  { host, port }: { host: string; port: number },
): void {
  const server = front.server((request, response) => {
    managed.add(request);
    fastify.routing(request, response);
  });
  servers.set(fastify, server);
  fastify.addHook('onReady', async () => {
    server.listen({ host, port });
    await once(server, 'listening');
  });
  fastify.addHook('onClose', async () => {
    server.close();
    server.closeAllConnections();
  });
}

/** Where the management port is reached; undefined where there is none. */
export function managementUrlOf(fastify: FastifyInstance): string | undefined {
  const address = servers.get(fastify)?.address() as AddressInfo | null | undefined;
  if (!address) return undefined;
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`;
}
