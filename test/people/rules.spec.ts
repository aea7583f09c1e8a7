import type { Type } from '@nestjs/common';
import {
  IsArray,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  MaxLength,
  ValidateNested,
  validateSync,
} from 'class-validator';
import fc from 'fast-check';
import { surelyKeepsRules } from '../../src/json/rules.js';
import {
  CreatePersonDto,
  FindPeopleDto,
  PeopleDto,
  PersonIdDto,
  UpdatePersonDto,
} from '../../src/people/person.dto.js';

class Plain {
  @IsString()
  @MaxLength(5)
  text: unknown;

  @IsOptional()
  @IsInt()
  @IsIn([1, 2, 3])
  number: unknown;
}
class Listing {
  @IsArray({ each: true })
  lists: unknown[] = ['no list'];
}
class Outer {
  @IsArray()
  @ValidateNested()
  inner: Plain[] = [];
}
class Inherited extends Plain {
  @IsString()
  more: unknown;
}
class Bare {}

const ID = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const value = fc.oneof(
  fc.constantFrom(
    undefined,
    null,
    '',
    'Ada',
    ID,
    ID.toUpperCase(),
    `${ID} `,
    'nul \0',
    '\ud800',
    1,
    0,
    1001,
    1.5,
    true,
  ),
  fc.string(),
  fc.anything(),
);
const properties = ['id', 'name', 'data', 'limit', 'cursor', 'people', 'ids', 'text', 'number', 'more'];
const dtos = [CreatePersonDto, UpdatePersonDto, FindPeopleDto, PersonIdDto, PeopleDto, Plain, Inherited];

it.each(dtos.map((dto) => [dto.name, dto as Type<object>]))(
  'the rules of %s hold where class-validator finds nothing wrong, and nowhere else',
  (_, dtoClass) => {
    const seen = new Set<boolean>();
    fc.assert(
      fc.property(fc.array(value, { minLength: 10, maxLength: 10 }), (values) => {
        const dto = Object.assign(
          new dtoClass(),
          Object.fromEntries(properties.map((property, n) => [property, values[n]])),
        );
        const holds = validateSync(dto).length === 0;
        seen.add(holds);
        expect(surelyKeepsRules(dtoClass, dto)).toBe(holds);
      }),
      { numRuns: 2000 },
    );
    expect([...seen].sort()).toEqual([false, true]);
  },
);

it.each([
  ['of each element', new Listing()],
  ['of objects within', new Outer()],
  ['of no property', new Bare()],
])('it is left to class-validator where rules are %s', (_, dto) => {
  expect(surelyKeepsRules(dto.constructor as Type, dto)).toBe(false);
});
