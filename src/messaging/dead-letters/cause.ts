import { plainText } from '../../errors/plain-text.js';

/** One error of a chain of causes, the outermost first. */
export interface DeadLetterCause {
  /** The error's class. */
  type: string;
  /** What it said, 1,000 characters at most. */
  message: string;
  /** An SQLSTATE, or a code of Node's. */
  code?: string;
  /** The places alone, without the message. */
  stack?: string;
}

const CAUSES_AT_MOST = 5;
const MESSAGE_CHARACTERS = 1000;
const STACK_CHARACTERS = 4000;

/**
 * What a message really failed with, and what caused that: for whoever has to find out why it is a dead letter. Bounded, without
 * statements and their values, and whatever was thrown.
 */
export function causesOf(thrown: unknown): DeadLetterCause[] {
  const causes: DeadLetterCause[] = [];
  try {
    for (let error = thrown; error !== undefined && error !== null && causes.length < CAUSES_AT_MOST;) {
      causes.push(causeOf(error));
      const { cause, driverError } = Object(error) as { cause?: unknown; driverError?: unknown };
      error = cause ?? driverError;
    }
  } catch {
    // Looking at what somebody has thrown may throw as well; what was seen of it is kept.
  }
  return causes;
}

function causeOf(error: unknown): DeadLetterCause {
  if (!(error instanceof Error)) return { type: typeof error, message: plainText(error, MESSAGE_CHARACTERS) };
  const { name, message, stack = '' } = error;
  const { code } = error as { code?: unknown };
  const places = stack.split('\n').filter((line) => /^\s+at /.test(line));
  return {
    type: plainText(name),
    message: plainText(message, MESSAGE_CHARACTERS),
    ...(typeof code === 'string' && { code: plainText(code) }),
    ...(places.length > 0 && { stack: plainText(places.join('\n'), STACK_CHARACTERS) }),
  };
}
