import type { CallHandler, Type } from '@nestjs/common';
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js';
import { WsAdapter } from '@nestjs/platform-ws';
import { Ack, ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { EventEmitter, once } from 'node:events';
import { createRequire } from 'node:module';
import { defer, lastValueFrom } from 'rxjs';
import { RetryingTransactionInterceptor } from '../../src/transactions/retrying-transaction.interceptor.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { duringTests } from '../support/during-tests.js';
import { startTransactionsHost } from '../support/transactions-host.js';

/** Node 20 has no WebSocket client of its own. */
const WebSocket = createRequire(import.meta.url)('ws') as new (url: string) => EventEmitter & {
  send(text: string): void;
  close(): void;
};

interface Basket {
  items: string[];
  owner: { visits: number };
}

const host = duringTests(() =>
  startTransactionsHost({
    providers: [ShopGateway],
    prepare: (app) => app.useWebSocketAdapter(new WsAdapter(app)),
  }),
);
/** What each attempt was given, as it was then. */
let seen: string[] = [];

@WebSocketGateway()
class ShopGateway {
  @SubscribeMessage('order')
  @Transactional()
  async order(@MessageBody() basket: Basket, @ConnectedSocket() socket: { orders?: number }) {
    seen.push(JSON.stringify(basket));
    basket.items.push('a gift');
    basket.owner.visits++;
    socket.orders = (socket.orders ?? 0) + 1;
    await host.conflict(2);
    return { event: 'ordered', data: { basket, orders: socket.orders } };
  }
}

beforeEach(() => {
  seen = [];
});

it('a gateway’s handler finds the message as it was sent in every attempt, and its socket as it left it', async () => {
  const socket = new WebSocket(host.url.replace('http', 'ws'));
  await once(socket, 'open');
  const sent = { items: ['tea'], owner: { visits: 1 } };
  socket.send(JSON.stringify({ event: 'order', data: sent }));
  const [answer] = (await once(socket, 'message')) as [Buffer];
  socket.close();
  expect(seen).toEqual(Array.from({ length: 3 }, () => JSON.stringify(sent)));
  expect(JSON.parse(String(answer))).toEqual({
    event: 'ordered',
    data: { basket: { items: ['tea', 'a gift'], owner: { visits: 2 } }, orders: 3 },
  });
});

describe('a resolver that meets two conflicts', () => {
  class Resolver {
    order() {
      return undefined;
    }
  }

  it('finds its arguments and its parent as they were in every attempt, and request and schema as it left them', async () => {
    const parent = { name: 'Ada', visits: 1 };
    const args = Object.assign(Object.create(null) as object, { basket: { items: ['tea'] } });
    const context = { request: { reads: 0 } };
    const info = { path: { reads: 0 } };
    await intercepted('graphql', [parent, args, context, info], Resolver, async () => {
      seen.push(JSON.stringify({ parent, args, context, info }));
      parent.visits++;
      args.basket.items.push('a gift');
      context.request.reads++;
      info.path.reads++;
      await host.conflict(2);
    });
    const attempt = (reads: number) =>
      JSON.stringify({
        parent: { name: 'Ada', visits: 1 },
        args: { basket: { items: ['tea'] } },
        context: { request: { reads } },
        info: { path: { reads } },
      });
    expect(seen).toEqual([attempt(0), attempt(1), attempt(2)]);
  });

  it('keeps properties that are computed', async () => {
    const args = { get total() { return 3; }, items: ['tea'] }; // prettier-ignore
    await intercepted('graphql', [undefined, args, {}, {}], Resolver, async () => {
      seen.push(`${args.total} ${args.items.join()}`);
      args.items.push('a gift');
      await host.conflict(2);
    });
    expect(seen).toEqual(['3 tea', '3 tea', '3 tea']);
  });
});

it('what a frozen argument holds is put back as well', async () => {
  class Resolver {
    order() {
      return undefined;
    }
  }
  const items = ['tea'];
  const args = Object.freeze({ lists: Object.freeze([items]) });
  await intercepted('graphql', [undefined, args, {}, {}], Resolver, async () => {
    seen.push(items.join());
    items.push('a gift');
    await host.conflict(2);
  });
  expect(seen).toEqual(['tea', 'tea', 'tea']);
});

describe('a handler of a kind that is not known here', () => {
  class Bot {
    start() {
      return undefined;
    }
  }
  const message = { text: 'start' };

  it('is refused by name before its first attempt, as what it is given could not be put back', async () => {
    const call = intercepted('telegraf', [message], Bot, async () => void seen.push('ran'));
    await expect(call).rejects.toThrow(
      /^Bot\.start: .*handlers of the kind "telegraf".*maxAttempts: 1.*provider/,
    );
    expect(seen).toEqual([]);
  });

  it('runs where one attempt is allowed only', async () => {
    const once = RetryingTransactionInterceptor.with({ maxAttempts: 1 });
    await intercepted('telegraf', [message], Bot, async () => void seen.push('ran'), once);
    expect(seen).toEqual(['ran']);
  });
});

it('a gateway’s handler that answers by itself is refused: it would answer before the commit', () => {
  expect(() => {
    class Answers {
      @Transactional()
      async order(@Ack() _: unknown) {}
    }
    return Answers;
  }).toThrow(/Answers\.order: a handler that sends the answer itself sends it before the commit/);
});

/** Runs `handler` as Nest would, behind the interceptor. */
async function intercepted(
  type: string,
  args: unknown[],
  target: Type,
  handler: () => Promise<void>,
  Interceptor: Type<RetryingTransactionInterceptor> = RetryingTransactionInterceptor,
): Promise<void> {
  const [name] = Object.getOwnPropertyNames(target.prototype).filter((key) => key !== 'constructor');
  const context = new ExecutionContextHost(
    args,
    target,
    (target.prototype as Record<string, () => void>)[name!],
  );
  context.setType(type);
  const next: CallHandler = { handle: () => defer(handler) };
  const answer = defer(() => new Interceptor(host.transactions).intercept(context, next));
  await lastValueFrom(answer, { defaultValue: undefined });
}
