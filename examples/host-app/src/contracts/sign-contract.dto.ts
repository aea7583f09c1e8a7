import { IsNotEmpty, IsObject, IsString } from 'class-validator';
import type { NewPerson } from 'nestjs-people';
import type { VeryComplicatedData } from '../very-complicated-data.js';

/** What a client sends to sign a contract. */
export class SignContractDto {
  @IsString()
  @IsNotEmpty()
  title!: string;

  /** Only its being an object is checked here: PeopleService checks every person, whoever brings it. */
  @IsObject()
  signer!: NewPerson<VeryComplicatedData>;
}
