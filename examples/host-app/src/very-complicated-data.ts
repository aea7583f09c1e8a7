import { Transform } from 'class-transformer';
import { IsInstance, IsString } from 'class-validator';
import { IsUint64 } from 'nestjs-people';

/**
 * A person's `data` as a type, for `PeopleModule.forRoot({ dataType: VeryComplicatedData })`: what `many_many_fields: u64`
 * and `dict: Map<string, string>` are elsewhere.
 */
export class VeryComplicatedData {
  /** Every u64: a bigint here, a JSON number with all its digits outside. */
  @IsUint64()
  many_many_fields!: bigint;

  /** A Map here, a JSON object outside. */
  @Transform(({ value }) => toMap(value), { toClassOnly: true })
  @IsInstance(Map, { message: '$property must be an object' })
  @IsString({ each: true, message: '$property must have strings only for values' })
  dict!: Map<string, string>;
}

/** Any other value is left to the validators. */
function toMap(value: unknown): unknown {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  return isObject && !(value instanceof Map) ? new Map(Object.entries(value)) : value;
}
