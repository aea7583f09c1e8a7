import { ConflictException, Injectable } from '@nestjs/common';
import { type NewPerson, PeopleService, TransactionRunner } from 'nestjs-people';
import type { VeryComplicatedData } from '../very-complicated-data.js';
import { Contract } from './contract.entity.js';

/** The operations on contracts. */
@Injectable()
export class ContractsService {
  constructor(
    private readonly people: PeopleService<VeryComplicatedData>,
    private readonly transactions: TransactionRunner,
  ) {}

  /**
   * Stores the signer and the contract, both or neither.
   *
   * @throws ConflictException a contract of this title is there already
   * @throws InvalidInputError the signer is not a person
   */
  sign(title: string, signer: NewPerson<VeryComplicatedData>): Promise<Contract> {
    // SERIALIZABLE: of two that sign one title at once, one runs again, and then finds it taken.
    return this.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async (transaction) => {
      // PeopleService joins the transaction by itself; a repository must come from its manager.
      const person = await this.people.create(signer);
      const contracts = transaction.manager.getRepository(Contract);
      if (await contracts.existsBy({ title }))
        throw new ConflictException(`A contract titled ${title} is signed already.`);
      return contracts.save({ title, personId: person.id });
    });
  }

  /** All contracts, by title. */
  list(): Promise<Contract[]> {
    return this.transactions.run({}, ({ manager }) =>
      manager.getRepository(Contract).find({ order: { title: 'ASC' } }),
    );
  }
}
