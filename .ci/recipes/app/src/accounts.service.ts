import { Injectable } from '@nestjs/common';
import { TransactionRunner } from 'nestjs-people/transactions';
import { Account } from './account.entity.js';

@Injectable()
export class AccountsService {
  /** Names of those that were paid, for whoever is to be told. */
  readonly told: string[] = [];

  constructor(private readonly transactions: TransactionRunner) {}

  transfer(from: string, to: string, amount: number): Promise<void> {
    return this.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async (transaction) => {
      const accounts = transaction.manager.getRepository(Account);
      const payer = await accounts.findOneByOrFail({ name: from });
      const payee = await accounts.findOneByOrFail({ name: to });
      if (payer.balance < amount) throw new Error(`${from} has not that much.`);
      await accounts.save({ ...payer, balance: payer.balance - amount });
      await accounts.save({ ...payee, balance: payee.balance + amount });
      transaction.afterCommit(() => this.told.push(to));
    });
  }
}
