import { Controller, Get, Inject, Injectable, Module, type Type } from '@nestjs/common';
import { ModulesContainer, RouterModule } from '@nestjs/core';
import { TestingModule, Test } from '@nestjs/testing';
import { DataSource } from 'typeorm';
import { MessageStore } from '../../src/messaging/message-store.js';
import { MessagingModule } from '../../src/messaging/messaging.module.js';
import { Outbox } from '../../src/messaging/outbox.js';
import { PeopleHttpController } from '../../src/people/http/controller.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { PeopleService } from '../../src/people/people.service.js';
import { Person } from '../../src/people/person.entity.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { TransactionsModule } from '../../src/transactions/transactions.module.js';
import { type AnyHost, startAnyHost, typeOrm } from '../support/any-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
let host: AnyHost | TestingModule | undefined;
beforeAll(async () => {
  database = await createDatabase();
});
afterEach(async () => {
  await host?.close();
  host = undefined;
});
afterAll(() => database.drop());

const options = {
  maxNameBytes: 7,
  controllers: { http: false, messages: false },
  transactions: { maxAttempts: 3 },
};
const root = () => PeopleModule.forRoot(options);

@Injectable()
class Registry {
  constructor(
    readonly people: PeopleService,
    @Inject(TransactionRunner) readonly transactions: TransactionRunner,
    readonly outbox: Outbox,
  ) {}
}
@Module({ imports: [PeopleModule], providers: [Registry] })
class FeatureModule {}

/** All that is injected as `token`, by whichever module. */
const instancesOf = (app: { get(token: unknown): unknown }, token: unknown) =>
  new Set(
    [...(app.get(ModulesContainer) as ModulesContainer).values()].flatMap(({ providers }) => {
      const wrapper = providers.get(token as never);
      return wrapper ? [wrapper.instance] : [];
    }),
  );
const controllersOf = (app: { get(token: unknown): unknown }) =>
  [...(app.get(ModulesContainer) as ModulesContainer).values()].flatMap(({ controllers }) => [
    ...controllers.keys(),
  ]);

describe('PeopleModule without options, in a feature module, is the one of the root', () => {
  it.each([
    ['before it', () => [FeatureModule, typeOrm(database.url), root()]],
    ['behind it', () => [typeOrm(database.url), root(), FeatureModule]],
    [
      'by a factory',
      () => [
        FeatureModule,
        PeopleModule.forRootAsync({
          controllers: options.controllers,
          useFactory: () => Promise.resolve({ maxNameBytes: 7, transactions: options.transactions }),
        }),
        typeOrm(database.url),
      ],
    ],
  ])('%s', async (_, imports) => {
    host = await startAnyHost({ imports: imports() });
    const { app } = host;
    const { people, transactions, outbox } = app.get(Registry, { strict: false });
    for (const [token, injected] of [
      [PeopleService, people],
      [TransactionRunner, transactions],
      [Outbox, outbox],
    ])
      expect([...instancesOf(app, token)].map((each) => each === injected)).toEqual([true]);
    expect(transactions.settings.maxAttempts).toBe(3);
    await expect(people.create({ name: 'longer than seven' })).rejects.toThrow('7 bytes');
    expect((await host.send('POST', '/people', '{"name":"Ada"}')).status).toBe(404);
    expect(controllersOf(app)).toEqual([]);
  });

  // @trap `imports: [SomeModule]` in a feature module is a second one with every default: routes that the root switched off answer
  it('on the DataSource that the root names, and there is no default one', async () => {
    host = await startAnyHost({
      imports: [
        FeatureModule,
        typeOrm(database.url, { name: 'crm' }),
        PeopleModule.forRoot({ dataSource: 'crm', controllers: { messages: false } }),
      ],
    });
    expect((await host.send('POST', '/people', '{"name":"Ada"}')).status).toBe(201);
    const { people, transactions } = host.app.get(Registry, { strict: false });
    expect((await people.findByName('Ada')).items).toHaveLength(1);
    expect(transactions.dataSource.options).toMatchObject({ name: 'crm' });
    expect(controllersOf(host.app)).toEqual([PeopleHttpController]);
  });

  it('through a shared module that exports it, and under a path that the host gives it', async () => {
    @Module({ imports: [typeOrm(database.url), PeopleModule.forRoot({ controllers: { messages: false } })], exports: [PeopleModule] }) // prettier-ignore
    class SharedModule {}
    @Controller()
    class NamesController {
      constructor(private readonly people: PeopleService) {}
      @Get('names')
      async names() {
        return (await this.people.findByName('Bob')).items.map(({ name }) => name);
      }
    }
    @Module({ imports: [SharedModule], controllers: [NamesController] })
    class NamesModule {}
    const routes = RouterModule.register([{ path: 'crm', module: PeopleModule }]);
    host = await startAnyHost({ imports: [NamesModule, FeatureModule, routes] });
    expect((await host.send('POST', '/crm/people', '{"name":"Bob"}')).status).toBe(201);
    expect(await (await host.request('/names')).json()).toEqual(['Bob']);
    expect(instancesOf(host.app, PeopleService).size).toBe(1);
  });

  it('also where a test puts a fake in the place of the service', async () => {
    const fake = { create: () => 'fake' };
    host = await Test.createTestingModule({ imports: [FeatureModule, typeOrm(database.url), root()] })
      .overrideProvider(PeopleService)
      .useValue(fake)
      .compile();
    expect(host.get(Registry, { strict: false }).people).toBe(fake);
  });

  it('but in a test of the feature alone, which needs no database, another module can be in its place', async () => {
    const fakes = [PeopleService, TransactionRunner, Outbox].map((provide) => ({ provide, useValue: {} }));
    @Module({ providers: fakes, exports: fakes.map(({ provide }) => provide) })
    class FakePeopleModule {}
    host = await Test.createTestingModule({ imports: [FeatureModule] })
      .overrideModule(PeopleModule)
      .useModule(FakePeopleModule)
      .compile();
    expect(host.get(Registry, { strict: false }).people).toBe(fakes[0]!.useValue);
  });

  it('and applications beside each other in a process know nothing of each other', async () => {
    const other = await startAnyHost({ imports: [typeOrm(database.url), root(), FeatureModule] });
    try {
      host = await startAnyHost({
        imports: [typeOrm(database.url), PeopleModule.forRoot({ maxNameBytes: 30 }), FeatureModule],
      });
      await host.app.get(Registry, { strict: false }).people.create({ name: 'longer than seven' });
      const { people } = other.app.get(Registry, { strict: false });
      await expect(people.create({ name: 'longer than seven' })).rejects.toThrow('7 bytes');
    } finally {
      await other.close();
    }
  });
});

describe('without any forRoot', () => {
  it('PeopleModule takes every default, once, and the modules that it brings along are its own', async () => {
    host = await startAnyHost({
      imports: [TransactionsModule, MessagingModule, FeatureModule, PeopleModule, typeOrm(database.url)],
    });
    expect((await host.send('POST', '/people', '{"name":"Cyd"}')).status).toBe(201);
    for (const token of [PeopleService, TransactionRunner, MessageStore])
      expect(instancesOf(host.app, token).size).toBe(1);
    expect(controllersOf(host.app).filter((controller) => controller === PeopleHttpController)).toHaveLength(
      1,
    );
  });

  it('an application of transactions alone has no entity Person', async () => {
    host = await startAnyHost({ imports: [typeOrm(database.url, { name: 'own' }), TransactionsModule.forRoot({ dataSource: 'own' })] }); // prettier-ignore
    expect(host.app.get<DataSource>('ownDataSource', { strict: false }).hasMetadata(Person)).toBe(false);
  });
});

describe.each([
  ['TransactionsModule', TransactionsModule],
  ['MessagingModule', MessagingModule],
])('%s without options', (_, module) => {
  const injectedIn = async (imports: unknown[]) => {
    @Injectable()
    class Users {
      constructor(readonly transactions: TransactionRunner) {}
    }
    @Module({ imports: [module], providers: [Users] })
    class UsersModule {}
    host = await startAnyHost({ imports: [UsersModule, ...(imports as Type[])] });
    const { transactions } = host.app.get(Users, { strict: false });
    expect([...instancesOf(host.app, TransactionRunner)].map((each) => each === transactions)).toEqual([
      true,
    ]);
    return transactions;
  };

  it('is the one of the root, of which there may be another on another DataSource', async () => {
    const transactions = await injectedIn([typeOrm(database.url), module.forRoot({ maxAttempts: 4 })]);
    expect(transactions.settings.maxAttempts).toBe(4);
  });

  it('is the one that PeopleModule sets up', async () => {
    const transactions = await injectedIn([typeOrm(database.url), root()]);
    expect(transactions.settings.maxAttempts).toBe(3);
  });
});

describe('of two on different DataSources', () => {
  const crm = () => typeOrm(database.url, { name: 'crm' });

  it('each goes to those that import it, and without options it is the one of the default DataSource', async () => {
    const archive = TransactionsModule.forRoot({ dataSource: 'crm', maxAttempts: 2 });
    const injected = (imports: NonNullable<Parameters<typeof Module>[0]['imports']>) => {
      @Injectable()
      class Users {
        constructor(readonly transactions: TransactionRunner) {}
      }
      @Module({ imports, providers: [Users] })
      class UsersModule {}
      return [Users, UsersModule] as const;
    };
    const [Bare, BareModule] = injected([TransactionsModule]);
    const [Named, NamedModule] = injected([archive]);
    host = await startAnyHost({
      imports: [
        BareModule,
        NamedModule,
        crm(),
        typeOrm(database.url),
        TransactionsModule.forRoot({ maxAttempts: 5 }),
      ],
    });
    expect(host.app.get(Bare, { strict: false }).transactions.settings.maxAttempts).toBe(5);
    expect(host.app.get(Named, { strict: false }).transactions.settings.maxAttempts).toBe(2);
  });

  it('none of which is the default one, it has to be said which', async () => {
    const imports = [
      TransactionsModule,
      crm(),
      typeOrm(database.url, { name: 'erp' }),
      TransactionsModule.forRoot({ dataSource: 'crm' }),
      TransactionsModule.forRoot({ dataSource: 'erp' }),
    ];
    await expect(startAnyHost({ imports })).rejects.toThrow(
      "TransactionsModule is imported without options, and there are several of it, on the DataSources crm, erp. Keep what TransactionsModule.forRoot({ dataSource: 'crm', … }) returned in a constant, and import that.",
    );
  });
});

describe('a start is refused with what to write where', () => {
  const refusal = (...imports: unknown[]) =>
    expect(startAnyHost({ imports: [typeOrm(database.url), ...(imports as Type[])] })).rejects;

  it('PeopleModule.forRoot stands twice for a DataSource', () =>
    refusal(root(), root()).toThrow(
      'PeopleModule.forRoot stands twice for the default DataSource; an application has one for each. Keep one of them, and import the module without options everywhere else: imports: [PeopleModule].',
    ));

  it('that happens in an application that knows its modules by what is in them', async () => {
    const imports = [typeOrm(database.url), root(), root()];
    const nest = { moduleIdGeneratorAlgorithm: 'deep-hash' } as const;
    await expect(startAnyHost({ imports, nest })).rejects.toThrow('PeopleModule.forRoot stands twice');
  });

  it('TransactionsModule.forRoot stands beside PeopleModule.forRoot', () =>
    refusal(TransactionsModule.forRoot(), root()).toThrow(
      'TransactionsModule.forRoot stands beside PeopleModule.forRoot, which sets up TransactionsModule as well, both on the default DataSource. Give its options to PeopleModule.forRoot, and import TransactionsModule without options where it is needed: imports: [TransactionsModule].',
    ));
});
