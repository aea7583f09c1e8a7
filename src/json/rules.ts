import type { Type } from '@nestjs/common';
import { getMetadataStorage, type ValidationArguments, ValidationTypes } from 'class-validator';

type Metadata = ReturnType<ReturnType<typeof getMetadataStorage>['getTargetValidationMetadatas']>[number];
type Validate = (value: unknown, validation: ValidationArguments) => unknown;

/** The rules of one property: they hold where one of the conditions does not, or every check succeeds. */
interface PropertyRules {
  property: string;
  conditions: ((dto: object, value: unknown) => unknown)[];
  checks: { validate: Validate; constraints: unknown[] }[];
}

const compiled = new WeakMap<object, readonly PropertyRules[] | undefined>();

/**
 * True when class-validator would find nothing wrong with an instance of `dtoClass`, which is known in a tenth of its time: the rules are
 * those of the class's decorators, looked up once. False also where it can't be told; then class-validator says what is wrong, if
 * anything is.
 */
export function surelyKeepsRules(dtoClass: Type, dto: object): boolean {
  if (!compiled.has(dtoClass)) compiled.set(dtoClass, compile(dtoClass));
  return compiled.get(dtoClass)?.every((rules) => keeps(rules, dto)) ?? false;
}

function keeps({ property, conditions, checks }: PropertyRules, dto: object): boolean {
  const value = (dto as Record<string, unknown>)[property];
  for (const condition of conditions) if (!condition(dto, value)) return true;
  for (const { validate, constraints } of checks) {
    const targetName = dto.constructor.name;
    if (validate(value, { value, constraints, targetName, object: dto, property }) !== true) return false;
  }
  return true;
}

/** @returns undefined where the class has rules of a kind that is not known here, or none */
function compile(dtoClass: Type): PropertyRules[] | undefined {
  const all = new Map<string, PropertyRules>();
  for (const metadata of getMetadataStorage().getTargetValidationMetadatas(dtoClass, '', false, false)) {
    const property = metadata.propertyName;
    const rules = all.get(property) ?? { property, conditions: [], checks: [] };
    all.set(property, rules);
    if (!add(metadata, rules)) return undefined;
  }
  return all.size > 0 ? [...all.values()].filter(({ checks }) => checks.length > 0) : undefined;
}

function add(metadata: Metadata, { conditions, checks }: PropertyRules): boolean {
  const { type, constraints, constraintCls, each } = metadata;
  if (each) return false;
  if (type === ValidationTypes.WHITELIST) return true;
  if (type === ValidationTypes.CONDITIONAL_VALIDATION) {
    conditions.push(constraints[0] as PropertyRules['conditions'][number]);
    return true;
  }
  if (type !== ValidationTypes.CUSTOM_VALIDATION) return false;
  for (const { instance } of getMetadataStorage().getTargetValidatorConstraints(constraintCls))
    checks.push({ validate: (...given) => instance.validate(...given), constraints: constraints ?? [] });
  return true;
}
