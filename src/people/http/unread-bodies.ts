import { Inject, Injectable, UnsupportedMediaTypeException } from '@nestjs/common';
import { HttpAdapterHost, ModuleRef } from '@nestjs/core';
import type { IncomingMessage } from 'node:http';
import { mediaTypeOf, pathOf } from '../../json/body.decorator.js';
import { NDJSON } from '../../json/ndjson.js';
import { PEOPLE_OPTIONS, type PeopleOptions } from '../people.options.js';

const MEBIBYTE = 1024 * 1024;
/** What one JSON body may be long where nothing else is said; streams (NDJSON) have no limit but that of a line. */
export const DEFAULT_BODY_LIMIT_BYTES = MEBIBYTE;
/** The same of the array of a bulk request. */
export const DEFAULT_BULK_BODY_LIMIT_BYTES = 16 * MEBIBYTE;

/** What bodies may be long, in bytes. */
export type BodyLimits = Pick<PeopleOptions, 'bodyLimitBytes' | 'bulkBodyLimitBytes'>;

/** On a handler, and on its route in Fastify: the body that it takes. */
export const TAKES_BODY = Symbol('nestjs-people:TAKES_BODY');
export interface TakenBody {
  types: readonly string[];
  isBulk: boolean;
}

/** Those that our routes take, or refuse with what they do take. */
const TYPES = new Set(['application/json', NDJSON, 'application/merge-patch+json']);
/** As Express' parsers call themselves. */
const EXPRESS_PARSERS = new Set(['jsonParser', 'rawParser', 'textParser', 'urlencodedParser']);
/** Stands for the type of a body that is left unread while Fastify looks for its parser. */
const UNREAD_TYPE = 'application/vnd.nestjs-people.unread';
/** On a request of Fastify: the type that it has come with. */
const OWN_TYPE = Symbol('OWN_TYPE');

/**
 * Has the application's parsers leave the bodies of our routes to be read behind the guards, as bytes: parsing changes numbers. What an
 * application does about its own routes stays as it is. One that was created with `rawBody: true` has asked for the bytes before the
 * guards, as those that check signatures need them: there its parsers read JSON, until `leaveJson` is set.
 */
@Injectable()
export class UnreadBodies {
  readonly limits: Required<BodyLimits>;
  leaveJson: boolean;

  constructor(
    private readonly adapterHost: HttpAdapterHost,
    moduleRef: ModuleRef,
    @Inject(PEOPLE_OPTIONS) options: PeopleOptions,
  ) {
    const { bodyLimitBytes = DEFAULT_BODY_LIMIT_BYTES, bulkBodyLimitBytes = DEFAULT_BULK_BODY_LIMIT_BYTES } =
      options;
    this.limits = { bodyLimitBytes, bulkBodyLimitBytes };
    // Nest tells nobody the options that an application was created with.
    const { container } = moduleRef as unknown as { container?: { contextOptions?: { rawBody?: boolean } } };
    this.leaveJson = container?.contextOptions?.rawBody !== true;
  }

  /** Before there are routes. */
  prepareFastify(): void {
    const fastify = this.adapterHost.httpAdapter.getInstance<FastifyParsers>();
    if (fastify.hasContentTypeParser(UNREAD_TYPE)) return;
    fastify.addContentTypeParser(UNREAD_TYPE, ({ raw }, body, done) => {
      const type = raw[OWN_TYPE];
      // Whoever sends it by that name.
      if (type === undefined) return done(new UnsupportedMediaTypeException());
      raw.headers['content-type'] = type;
      done(null, body);
    });
    fastify.addHook('onRoute', (route) => {
      if (route.config?.[TAKES_BODY]) route.preParsing = [route.preParsing ?? [], this.leavingBody].flat();
    });
  }

  /** Once the parsers and routes are there. */
  prepareExpress(): void {
    const { stack } = this.adapterHost.httpAdapter.getInstance<ExpressApplication>().router;
    const routes = stack.filter(({ route }) =>
      route?.stack.some(({ handle }) => Reflect.hasMetadata(TAKES_BODY, handle)),
    );
    const isOurs = (request: ExpressRequest) => {
      const method = request.method.toLowerCase();
      const isTaken = (layer: ExpressLayer) =>
        layer.route?.methods[method] === true && Boolean(layer.match(pathOf(request)));
      return routes.some(isTaken) && this.isLeft(mediaTypeOf(request));
    };
    for (const layer of stack) {
      if (!EXPRESS_PARSERS.has(layer.name)) continue;
      const parse = layer.handle;
      layer.handle = (request, response, next) => (isOurs(request) ? next() : parse(request, response, next));
    }
  }

  /** Fastify chooses the parser by the header, right behind these hooks: ours puts it back. */
  private readonly leavingBody: PreParsingHook = ({ raw }, _reply, _payload, done) => {
    const type = raw.headers['content-type'];
    const mediaType = type && TYPES.has(type) ? type : mediaTypeOf(raw);
    if (TYPES.has(mediaType) && this.isLeft(mediaType)) {
      raw[OWN_TYPE] = type!;
      raw.headers['content-type'] = UNREAD_TYPE;
    }
    done();
  };

  private isLeft(mediaType: string): boolean {
    return this.leaveJson || mediaType !== 'application/json';
  }
}

type ExpressRequest = IncomingMessage & { method: string; url: string };
type ExpressHandler = (request: ExpressRequest, response: unknown, next: () => void) => unknown;
interface ExpressLayer {
  name: string;
  handle: ExpressHandler;
  match(path: string | undefined): unknown;
  route?: { methods: Record<string, boolean | undefined>; stack: { handle: ExpressHandler }[] };
}
interface ExpressApplication {
  router: { stack: ExpressLayer[] };
}

interface FastifyRequest {
  raw: IncomingMessage & { [OWN_TYPE]?: string };
}
type PreParsingHook = (request: FastifyRequest, reply: unknown, payload: unknown, done: () => void) => void;
interface FastifyRoute {
  config?: Record<symbol, unknown>;
  preParsing?: PreParsingHook | PreParsingHook[];
}
interface FastifyParsers {
  addHook(name: 'onRoute', hook: (route: FastifyRoute) => void): void;
  hasContentTypeParser(type: string): boolean;
  addContentTypeParser(
    type: string,
    parser: (
      request: FastifyRequest,
      body: unknown,
      done: (error: Error | null, body?: unknown) => void,
    ) => void,
  ): void;
}
