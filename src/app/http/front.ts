// app/http/: What clients may take of the service over HTTP, and who they are: bounds, hosts, tokens, documentation.
// Promises: no body is read before it is known who sends it; every connection has a bound in bytes and in time.
// May know: people/http and operations/ for what they let others ask; nothing of messages.

import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { HttpException } from '@nestjs/common';
import { describeFailure, toProblem } from '../../errors/error-responses.js';
import { HttpPace, type PaceBounds } from './pace.js';
import { lingerOnClose, type LingerBounds } from './lingering-close.js';

/** What clients may take of the service's HTTP servers. */
export interface FrontBounds extends PaceBounds, LingerBounds {
  /** Until the headers of a request are whole, from the connection's begin or the request's first byte. */
  headersTimeoutMs: number;
  /** How long a connection without a request is kept. */
  keepAliveTimeoutMs: number;
}

const LOOK_EVERY_MS = 1000;
const LISTENERS_AT_MOST = 20;

/** Requests of one connection that are under way or wait: answers leave in order, so they are worked on in order. */
interface Line {
  current: { readonly request: IncomingMessage; readonly response: ServerResponse } | undefined;
  waiting: (() => void)[];
  /** Something came that is no request, so nothing behind it can be one. */
  isBroken?: boolean;
}

/** Makes the HTTP servers of the service, which share their bounds. What is not HTTP ends here. */
export class HttpFront {
  private readonly pace: HttpPace;
  private readonly lines = new WeakMap<Socket, Line>();

  constructor(private readonly bounds: FrontBounds) {
    this.pace = new HttpPace(bounds);
  }

  /** Connections that are open. */
  get connections(): number {
    return this.pace.connections;
  }

  /** A server that gives each request to `handle`, those of one connection one after another. */
  server(handle: RequestListener): Server {
    const { headersTimeoutMs, keepAliveTimeoutMs } = this.bounds;
    const server = createServer({
      headersTimeout: headersTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
      // A slow upload is judged by its rate, where it is read: an end would cut the honest ones too.
      requestTimeout: 0,
      connectionsCheckingInterval: Math.min(LOOK_EVERY_MS, headersTimeoutMs),
      // Refused with the rest, as a problem.
      requireHostHeader: false,
    });
    // Their bytes are bounded. A bound of their number would drop the rest in silence.
    server.maxHeadersCount = 0;
    this.pace.watch(server);
    server.on('connection', (socket: Socket) => lingerOnClose(socket, this.bounds));
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => this.refuse(error, socket));
    server.on('request', (request, response) => this.inTurn(request, response, handle));
    server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      askForBodyWhenRead(request, response);
      server.emit('request', request, response);
    });
    // Refused with the rest, too.
    server.on('checkExpectation', (request, response) => server.emit('request', request, response));
    return server;
  }

  /** Answers what the parser refused, in place of Fastify, behind the answers to what came before it. */
  private refuse(error: NodeJS.ErrnoException, socket: Socket): void {
    const line = this.lineOf(socket);
    const isOfItsOwn = line.current === undefined || line.current.request.complete;
    if (
      error.code === 'ECONNRESET' ||
      !socket.writable ||
      (!isOfItsOwn && line.current!.response.headersSent)
    ) {
      socket.destroy();
      return;
    }
    const answer = () => {
      socket.write(refusalOf(error.code));
      socket.destroySoon();
    };
    if (!line.current || !isOfItsOwn) answer();
    else if (!line.isBroken) {
      line.isBroken = true;
      line.waiting.push(answer);
    }
  }

  private inTurn(request: IncomingMessage, response: ServerResponse, handle: RequestListener): void {
    const { socket } = request;
    const line = this.lineOf(socket);
    if (line.current) {
      line.waiting.push(() => this.start(line, request, response, handle));
      // Whoever sends without waiting is read on when what is here has been answered.
      socket.pause();
      return;
    }
    this.pace.isBusy(socket, true);
    this.start(line, request, response, handle);
  }

  /** One for as long as the connection is: a WeakMap that grew and shrank with each request would keep what it held of them. */
  private lineOf(socket: Socket): Line {
    let line = this.lines.get(socket);
    if (!line) this.lines.set(socket, (line = { current: undefined, waiting: [] }));
    return line;
  }

  private start(
    line: Line,
    request: IncomingMessage,
    response: ServerResponse,
    handle: RequestListener,
  ): void {
    const { socket } = request;
    line.current = { request, response };
    // Each part of an answer's way looks for its end: Fastify, the stream, what counts, what bounds.
    response.setMaxListeners(LISTENERS_AT_MOST);
    toOriginForm(request);
    // It comes once, so `once` is not asked for: what that makes may be allocated as old, and the whole request with it.
    response.on('close', () => {
      const next = socket.destroyed ? undefined : line.waiting.shift();
      if (next) return next();
      line.current = undefined;
      this.pace.isBusy(socket, false);
      if (!socket.destroyed) socket.resume();
    });
    void handle(request, response);
  }
}

/** A target may name its host (`GET http://host/people`), which counts then in place of the header (RFC 9112, 3.2.2). */
function toOriginForm(request: IncomingMessage): void {
  if (request.url?.startsWith('/')) return;
  const [, host, target] = /^https?:\/\/([^/?#]*)([^#]*)/i.exec(request.url ?? '') ?? [];
  if (host === undefined) return;
  request.headers.host = host;
  request.url = target?.startsWith('/') ? target : `/${target}`;
}

/** "100 Continue" asks the client for its body: so not before somebody wants it. */
function askForBodyWhenRead(request: IncomingMessage, response: ServerResponse): void {
  const onListener = (event: string | symbol) => {
    if (event !== 'data' && event !== 'readable') return;
    request.off('newListener', onListener);
    if (!response.headersSent) response.writeContinue();
  };
  request.on('newListener', onListener);
}

const REFUSALS: Record<string, [status: number, title: string, detail: string]> = {
  HPE_HEADER_OVERFLOW: [
    431,
    'Request Header Fields Too Large',
    'The headers are larger than 16 KiB together.',
  ],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [
    413,
    'Payload Too Large',
    'The chunk extensions are larger than 16 KiB together.',
  ],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout', 'The headers of the request did not come in time.'],
};

/** The whole answer, as there is no response to write it by. */
function refusalOf(code = ''): string {
  const [status, title, detail] = REFUSALS[code] ?? [
    400,
    'Bad Request',
    'The request is not valid HTTP/1.1.',
  ];
  const body = JSON.stringify(toProblem(describeFailure(new HttpException(detail, status)), undefined));
  return [
    `HTTP/1.1 ${status} ${title}`,
    'Content-Type: application/problem+json; charset=utf-8',
    'Cache-Control: no-store',
    'X-Content-Type-Options: nosniff',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n');
}
