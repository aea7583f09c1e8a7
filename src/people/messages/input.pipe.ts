import { Injectable, type PipeTransform } from '@nestjs/common';
import { InvalidInputError } from '../../errors/application-error.js';
import { type JsonInput, readJsonObject } from '../../json/input.js';
import { MAX_JSON_DEPTH, tooDeep } from '../../json/scanner.js';
import { INPUT_MEMBERS } from '../person.dto.js';

/**
 * Makes the value of a message the input of a handler. From the bytes (of KafkaTransport, or of Nest's own with
 * `parser: { keepBinary: true }`) every number is kept; a value that a transport has parsed already is taken as long as
 * no number in it can have changed.
 *
 * @throws InvalidInputError null, empty, no UTF-8, no JSON object
 */
@Injectable()
export class MessageInputPipe implements PipeTransform<unknown, JsonInput> {
  transform(value: unknown): JsonInput {
    if (value instanceof Uint8Array && value.length > 0)
      return readJsonObject(value, 'the message', INPUT_MEMBERS);
    if (isRecordOfNull(value)) throw noValue();
    if (typeof value !== 'object' || Array.isArray(value)) {
      throw new InvalidInputError('The message must be a JSON object.');
    }
    assertExact(value, '#');
    return value as JsonInput;
  }
}

export const noValue = () => new InvalidInputError('The message has no value; a JSON object was expected.');

/** Nest's Kafka transport hands the whole record over when its value is null. */
const isRecordOfNull = (value: unknown): value is null | undefined | Uint8Array =>
  value === null ||
  value === undefined ||
  value instanceof Uint8Array ||
  (typeof value === 'object' &&
    'offset' in value &&
    'timestamp' in value &&
    'value' in value &&
    value.value === null);

/** As `MessageInputPipe`; a message without a value gives null. */
@Injectable()
export class OptionalMessageInputPipe implements PipeTransform<unknown, JsonInput | null> {
  private readonly input = new MessageInputPipe();

  transform(value: unknown): JsonInput | null {
    return isRecordOfNull(value) && !(value instanceof Uint8Array) ? null : this.input.transform(value);
  }
}

function assertExact(value: unknown, pointer: string, depth = 0): void {
  if (typeof value === 'number' && !Number.isSafeInteger(value) && Number.isInteger(value)) {
    throw new InvalidInputError(
      'The message holds a number that its transport may have rounded: configure it with parser: { keepBinary: true }.',
      [{ pointer, detail: 'is an integer beyond 2^53 that was parsed before it arrived' }],
    );
  }
  if (typeof value !== 'object' || value === null) return;
  if (depth >= MAX_JSON_DEPTH) throw new InvalidInputError(`The message: ${tooDeep().message}.`);
  for (const [key, member] of Object.entries(value)) assertExact(member, `${pointer}/${key}`, depth + 1);
}
