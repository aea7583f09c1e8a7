import type { HttpServer, StreamableFile } from '@nestjs/common';
import { randomUUID } from 'node:crypto';

/** What is taken of the responses of Express and of Fastify. */
interface Reply {
  json?: (body: unknown) => unknown;
  send: (body: unknown) => unknown;
  serializer?: (serialize: (body: unknown) => string) => unknown;
}

/**
 * Answers are JSON text, for a serializer would change numbers. Where an interceptor of the host puts them into an envelope
 * (`{ data: … }`), that is serialized with the text as the JSON that it is, and not as a string.
 *
 * @returns the text
 */
export function asJson(response: unknown, text: string): string {
  const reply = response as Reply;
  if (reply.serializer)
    reply.serializer((body) =>
      typeof body === 'string' ? body : (withText(body, text) ?? JSON.stringify(body)),
    );
  else {
    const json = reply.json!;
    reply.json = (body) => {
      const whole = withText(body, text);
      return whole === undefined ? json.call(reply, body) : reply.send(whole);
    };
  }
  return text;
}

/**
 * A stream can't be put into an envelope: it is sent as it is.
 *
 * @returns the stream
 */
export function asStream(adapter: HttpServer, response: unknown, stream: StreamableFile): StreamableFile {
  const reply = response as Reply;
  const name = reply.serializer ? 'send' : 'json';
  const own = reply[name]!;
  reply[name] = (body) => {
    reply[name] = own;
    return isAround(stream, body) ? (adapter.reply(reply, stream) as unknown) : own.call(reply, body);
  };
  return stream;
}

/** The body as JSON, with the text wherever it stands as a value; undefined where it does not. */
function withText(body: unknown, text: string): string | undefined {
  const mark = randomUUID();
  let isThere = false;
  const marked = JSON.stringify(body, (_, value: unknown) => {
    if (value !== text) return value;
    isThere = true;
    return mark;
  });
  return isThere ? marked.replaceAll(`"${mark}"`, () => text) : undefined;
}

const isAround = (stream: StreamableFile, body: unknown): boolean =>
  typeof body === 'object' && body !== null && Object.values(body).includes(stream);
