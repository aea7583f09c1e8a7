import 'reflect-metadata';
import { Res, Sse } from '@nestjs/common';
import { snapshot } from '../../src/transactions/argument-snapshot.js';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';

describe('when it is applied, refuses', () => {
  it('a handler that sends the answer itself', () => {
    expect(() => {
      class Answers {
        @Transactional()
        async send(@Res() _: unknown) {}
      }
      return Answers;
    }).toThrow(/Answers\.send: a handler that sends the answer itself sends it before the commit/);
  });

  it('a stream of events', () => {
    expect(() => {
      class Events {
        @Transactional()
        @Sse('events')
        async send() {}
      }
      return Events;
    }).toThrow(/Events\.send: events of @Sse\(\) are sent before a commit/);
  });

  it('what is not a method', () => {
    const decorate = Transactional() as (target: object, key: string, property: object) => void;
    expect(() => decorate({}, 'name', { value: 'text' })).toThrow(TransactionUsageError);
  });

  it.each([
    { maxAttempts: 11 },
    { maxAttempts: 0 },
    { isolationLevel: 'SNAPSHOT' as never },
    { deferrable: true, readOnly: false },
    { conflictKey: '' },
  ])('%j', (options) => {
    expect(() => {
      class Mistaken {
        @Transactional(options)
        async work() {}
      }
      return Mistaken;
    }).toThrow(TransactionUsageError);
  });
});

it('arguments that are too large to be put back before another attempt', () => {
  const list = Array.from({ length: 100_001 }, () => ({}));
  expect(() => snapshot([list])).toThrow('maxAttempts: 1');
});
