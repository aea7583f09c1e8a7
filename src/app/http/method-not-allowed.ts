import { MethodNotAllowedException } from '@nestjs/common';
import type { FastifyInstance } from 'fastify';

/** Answers 405 with `Allow` where a path exists but not for the method; Fastify alone answers 404 (RFC 9110, 15.5.6). */
export function answerMethodNotAllowed(fastify: FastifyInstance): void {
  const methodsOfPattern = new Map<string, Set<string>>();
  fastify.addHook('onRoute', ({ url, method }) => {
    const methods = methodsOfPattern.get(url) ?? new Set();
    for (const each of [method].flat()) methods.add(each);
    methodsOfPattern.set(url, methods);
  });
  fastify.addHook('onRequest', (request, reply, done) => {
    if (!request.is404) return done();
    const path = request.url.split('?', 1)[0] ?? '';
    const allowed = [...methodsOfPattern].flatMap(([pattern, methods]) =>
      matches(pattern, path) ? [...methods] : [],
    );
    if (allowed.length === 0) return done();
    reply.header('Allow', [...new Set(allowed)].join(', '));
    done(new MethodNotAllowedException(`${request.method} is not a method of ${path}.`));
  });
}

function matches(pattern: string, path: string): boolean {
  if (pattern.includes('*')) return false;
  const expected = pattern.split('/');
  const given = path.split('/');
  return (
    expected.length === given.length &&
    expected.every((segment, index) =>
      segment.startsWith(':') ? given[index] !== '' : segment === given[index],
    )
  );
}
