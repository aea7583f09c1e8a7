import type { PeopleOptions } from './people.options.js';
import { INPUT_MEMBERS } from './person.dto.js';

const MEBIBYTE = 1024 * 1024;
/** What a person has beside name and data when it comes in: id, keys, white space. */
const BESIDE_BYTES = 1024;

/** What a person may be, in bytes of UTF-8. */
export interface PersonLimits {
  data: number;
  name: number;
  /** As an element of a JSON array. */
  element: number;
  /** As a line of newline-delimited JSON: what one body may be long, or more where a person may. */
  line: number;
}

export function personLimits({
  maxDataBytes = MEBIBYTE,
  maxNameBytes = MEBIBYTE,
}: Pick<PeopleOptions, 'maxDataBytes' | 'maxNameBytes'>): PersonLimits {
  const element = maxDataBytes + maxNameBytes + BESIDE_BYTES;
  const isMore = maxDataBytes > MEBIBYTE || maxNameBytes > MEBIBYTE;
  return { data: maxDataBytes, name: maxNameBytes, element, line: isMore ? element : MEBIBYTE };
}

/** What an array of people takes for an element. */
export const personElements = (options: PeopleOptions) => ({
  elementBytes: personLimits(options).element,
  known: INPUT_MEMBERS,
});
