import { Controller, Get, Post } from '@nestjs/common';
import { LosslessBody } from '../lossless-body.decorator.js';
import type { Contract } from './contract.entity.js';
import { ContractsService } from './contracts.service.js';
import { SignContractDto } from './sign-contract.dto.js';

/** The routes of `/contracts`. */
@Controller('contracts')
export class ContractsController {
  constructor(private readonly contracts: ContractsService) {}

  @Post()
  sign(@LosslessBody() { title, signer }: SignContractDto): Promise<Contract> {
    return this.contracts.sign(title, signer);
  }

  @Get()
  list(): Promise<Contract[]> {
    return this.contracts.list();
  }
}
