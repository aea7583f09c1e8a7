import 'reflect-metadata';
import { Test, type TestingModule } from '@nestjs/testing';
import { TypeOrmModule } from '@nestjs/typeorm';
import { PeopleModule, peopleMigrations, PeopleService } from 'nestjs-people';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { Account } from '../src/account.entity.js';
import { AccountsService } from '../src/accounts.service.js';

describe('AccountsService, on a database of this file’s own', () => {
  let server: pg.Client;
  let database: string;
  let module: TestingModule;
  let accounts: AccountsService;

  beforeAll(async () => {
    server = new pg.Client({ connectionString: process.env.DATABASE_URL });
    await server.connect();
    database = `test_${process.pid}_${Date.now()}`;
    await server.query(`CREATE DATABASE ${database}`);
    const url = new URL(process.env.DATABASE_URL!);
    url.pathname = `/${database}`;
    module = await Test.createTestingModule({
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url: url.href,
          autoLoadEntities: true,
          installExtensions: false,
          entities: [Account],
          migrations: peopleMigrations,
          migrationsRun: true,
          migrationsTransactionMode: 'each',
        }),
        PeopleModule.forRoot({ controllers: { http: false, messages: false } }),
      ],
      providers: [AccountsService],
    }).compile();
    // Nest's hooks run as in the application: without this nothing looks whether the database fits.
    await module.init();
    accounts = module.get(AccountsService);
    await module.get(DataSource).query('CREATE TABLE accounts (name text PRIMARY KEY, balance int NOT NULL)');
    await module.get(DataSource).query(`INSERT INTO accounts VALUES ('Ada', 10), ('Bob', 0)`);
  });

  afterAll(async () => {
    await module?.close();
    await server.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
    await server.end();
  });

  it('applies transfers that collide one after another, each once', async () => {
    await Promise.all(Array.from({ length: 5 }, () => accounts.transfer('Ada', 'Bob', 1)));
    expect(await balances()).toEqual({ Ada: 5, Bob: 5 });
    expect(accounts.told).toHaveLength(5);
  });

  it('rolls back all of one that fails', async () => {
    await expect(accounts.transfer('Ada', 'Bob', 100)).rejects.toThrow('Ada has not that much.');
    expect(await balances()).toEqual({ Ada: 5, Bob: 5 });
  });

  it('has PeopleService too', async () => {
    const { id } = await module.get(PeopleService).create({ name: 'Ada' });
    expect((await module.get(PeopleService).get(id)).name).toBe('Ada');
  });

  const balances = async () => {
    const rows = await module.get(DataSource).getRepository(Account).find();
    return Object.fromEntries(rows.map(({ name, balance }) => [name, balance]));
  };
});
