import { IsObject } from 'class-validator';
import { IsUint64 } from 'nestjs-people';

/** What this company keeps about a person. */
export class PeopleData {
  @IsUint64()
  many_many_fields!: bigint;

  @IsObject()
  dict!: Record<string, string>;
}
