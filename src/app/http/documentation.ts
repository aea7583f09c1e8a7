import { NotFoundException } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, getSchemaPath, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { ProblemDto } from '../../errors/problem.dto.js';

/** What the page asks for; the directory that it is served from has more. */
const ASSETS = new Set([
  'swagger-ui.css',
  'swagger-ui-bundle.js',
  'swagger-ui-standalone-preset.js',
  'favicon-16x16.png',
  'favicon-32x32.png',
]);

/** Serves the routes' documentation at `/docs`, and as OpenAPI at `/docs-json`. */
export function serveDocumentation(app: NestFastifyApplication): void {
  const fastify = app.getHttpAdapter().getInstance();
  fastify.addHook('onRequest', ({ params, routeOptions, method, url }, _reply, done) => {
    const asset = routeOptions.url === '/docs/*' ? (params as { '*': string })['*'] : undefined;
    done(
      asset === undefined || ASSETS.has(asset) ? undefined : new NotFoundException(`Cannot ${method} ${url}`),
    );
  });
  fastify.addHook('onSend', async (_request, reply, payload) => {
    const isPage =
      String(reply.getHeader('content-type')).startsWith('text/html') && typeof payload === 'string';
    // Without it phones show the page as for a desktop, made small.
    return isPage
      ? payload.replace(
          '<head>',
          '<head>\n  <meta name="viewport" content="width=device-width, initial-scale=1">',
        )
      : payload;
  });
  const config = new DocumentBuilder()
    .setOpenAPIVersion('3.1.0')
    .setTitle('People')
    .setDescription(
      'People over HTTP; every operation is a transaction that retries. Errors are RFC 9457 problems.',
    )
    .setVersion('1')
    .addBearerAuth()
    .build();
  SwaggerModule.setup('docs', app, () => withRefusals(SwaggerModule.createDocument(app, config)));
}

/** Adds the guard's answers to every operation that needs a token: the controllers don't know of it. */
function withRefusals(document: OpenAPIObject): OpenAPIObject {
  const refusal = (description: string) => ({
    description,
    content: { 'application/problem+json': { schema: { $ref: getSchemaPath(ProblemDto) } } },
  });
  for (const { get, post, patch, delete: remove } of Object.values(document.paths)) {
    for (const operation of [get, post, patch, remove]) {
      if (!operation?.security) continue;
      operation.responses['401'] = refusal('No bearer token, or one that is not valid (with `AUTH=jwt`).');
      operation.responses['403'] = refusal('The bearer token lacks the scope (with `AUTH=jwt`).');
    }
  }
  return document;
}
