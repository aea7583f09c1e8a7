import { Logger } from '@nestjs/common';
import { jest } from '@jest/globals';
import { ClientDriver } from '../../src/messaging/kafka/client/client-driver.js';
import { type BrokerLate, messageChannels } from '../../src/messaging/telemetry/message-events.js';

const told: unknown[] = [];
for (const level of ['warn', 'log'] as const)
  jest.spyOn(Logger.prototype, level).mockImplementation((entry: unknown) => void told.push(entry));

/** What the next answers take, in ms; they refuse, which is an answer as good as any. */
let takes = 0;
let passed = 0;
const now = performance.now.bind(performance);
jest.spyOn(performance, 'now').mockImplementation(() => now() + passed);
const connections = () => ({
  send: async () => {
    passed += takes;
    throw new Error('refused');
  },
  cut: () => undefined,
  close: () => undefined,
});
const library = { raw: undefined, connections, consumer: () => undefined, producer: () => Promise.reject(new Error()) }; // prettier-ignore
const driver = new ClientDriver(library, { clientId: 'people', brokers: ['kafka:9092'] }, new Logger());

// @trap a broker that is paused for seconds ends no connection and no session
it('a broker that answers seconds late is told once, each of its answers is counted, and it is told once they come in time', async () => {
  const late: BrokerLate[] = [];
  const listener = (event: unknown) => void late.push(event as BrokerLate);
  messageChannels.late.subscribe(listener);
  const ask = async (ms: number) => {
    takes = ms;
    await expect(driver.producer()).rejects.toThrow('refused');
  };
  for (const ms of [100, 4000, 5000, 100, 100]) await ask(ms);
  messageChannels.late.unsubscribe(listener);
  expect(late).toEqual(
    [4, 5].map((seconds) => ({
      ...{ broker: 'kafka:9092', request: 'ApiVersions' },
      lateMs: expect.closeTo(seconds * 1000, -3),
    })),
  );
  expect(told).toEqual([
    {
      msg: 'a broker answers late',
      broker: 'kafka:9092',
      request: 'ApiVersions',
      lateMs: expect.any(Number),
    },
    'the brokers answer in time again',
  ]);
});
