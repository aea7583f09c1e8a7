import { shown, SHOWN_CHARACTERS } from './shown.js';

/** What PostgreSQL's text can't hold. */
const UNSTORABLE = /\u0000|\p{Surrogate}/gu;

/** Text of whatever `value` is, as every log, header and column takes it: at most `atMost` characters, and never a failure. */
export function plainText(value: unknown, atMost = SHOWN_CHARACTERS): string {
  return shown(textOf(value), atMost).replaceAll(UNSTORABLE, '�');
}

function textOf(value: unknown): string {
  try {
    if (typeof value === 'string') return value;
    if (typeof value === 'bigint' || typeof value === 'number') return String(value);
    return JSON.stringify(value) ?? '';
  } catch {
    return 'a value that has no text';
  }
}

/** The same value as JSON has it, where that has at most `atMost` characters; else undefined. */
export function jsonAtMost(value: unknown, atMost: number): string | undefined {
  try {
    const json = JSON.stringify(value) as string | undefined;
    return json !== undefined && json.length <= atMost ? json : undefined;
  } catch {
    return undefined;
  }
}
