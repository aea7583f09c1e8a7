import { ConflictException, Injectable } from '@nestjs/common';
import { type NewPerson, PeopleService, TransactionRunner } from 'nestjs-people';
import type { PeopleData } from '../people-data.js';
import { Contract } from './contract.entity.js';

@Injectable()
export class ContractsService {
  constructor(
    private readonly people: PeopleService<PeopleData>,
    private readonly transactions: TransactionRunner,
  ) {}

  /** Stores the signer and the contract, both or neither. */
  sign(title: string, signer: NewPerson<PeopleData>): Promise<Contract> {
    return this.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async ({ manager }) => {
      const person = await this.people.create(signer);
      const contracts = manager.getRepository(Contract);
      if (await contracts.existsBy({ title }))
        throw new ConflictException(`The contract ${title} is signed already.`);
      return contracts.save({ title, personId: person.id });
    });
  }

  list(): Promise<Contract[]> {
    return this.transactions.run({}, ({ manager }) =>
      manager.getRepository(Contract).find({ order: { id: 'ASC' } }),
    );
  }
}
