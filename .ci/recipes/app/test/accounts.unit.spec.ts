import 'reflect-metadata';
import { Test } from '@nestjs/testing';
import { TransactionRunner } from 'nestjs-people/transactions';
import { fakeTransactionRunner } from 'nestjs-people/testing';
import type { EntityManager } from 'typeorm';
import type { Account } from '../src/account.entity.js';
import { AccountsService } from '../src/accounts.service.js';

describe('AccountsService, without a database', () => {
  it('refuses what the payer has not, and tells nobody', async () => {
    const { accounts, saved } = await given([{ name: 'Ada', balance: 1 }]);
    await expect(accounts.transfer('Ada', 'Ada', 2)).rejects.toThrow('Ada has not that much.');
    expect(saved).toEqual([]);
    expect(accounts.told).toEqual([]);
  });

  it('may run again: it decides from what it reads, and tells once', async () => {
    const rows = [
      { name: 'Ada', balance: 5 },
      { name: 'Bob', balance: 0 },
    ];
    // The first run is dropped, as one that met a conflict.
    const { accounts, saved } = await given(rows, 2);
    await accounts.transfer('Ada', 'Bob', 5);
    expect(saved.map(({ balance }) => balance)).toEqual([0, 5, 0, 5]);
    expect(accounts.told).toEqual(['Bob']);
  });
});

async function given(rows: Account[], attempts = 1) {
  const saved: Account[] = [];
  const repository = {
    findOneByOrFail: async ({ name }: Partial<Account>) => rows.find((row) => row.name === name),
    save: async (account: Account) => saved.push(account),
  };
  const manager = { getRepository: () => repository } as unknown as EntityManager;
  const module = await Test.createTestingModule({
    providers: [
      AccountsService,
      { provide: TransactionRunner, useValue: fakeTransactionRunner(manager, { attempts }) },
    ],
  }).compile();
  return { accounts: module.get(AccountsService), saved };
}
