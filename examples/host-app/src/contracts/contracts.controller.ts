import { Controller, Get, Post, type RawBodyRequest, Req, UseFilters } from '@nestjs/common';
import { parseJson, ProblemDetailsFilter } from 'nestjs-people';
import type { NewPerson } from 'nestjs-people';
import type { PeopleData } from '../people-data.js';
import type { Contract } from './contract.entity.js';
import { ContractsService } from './contracts.service.js';

@Controller('contracts')
@UseFilters(ProblemDetailsFilter)
export class ContractsController {
  constructor(private readonly contracts: ContractsService) {}

  @Post()
  sign(@Req() request: RawBodyRequest<object>): Promise<Contract> {
    // Parsed from the bytes, as the signer's data may hold numbers that JSON.parse would change.
    const { title, signer } = parseJson(String(request.rawBody)) as unknown as {
      title: string;
      signer: NewPerson<PeopleData>;
    };
    return this.contracts.sign(title, signer);
  }

  @Get()
  list(): Promise<Contract[]> {
    return this.contracts.list();
  }
}
