import type { MessageError } from '../../../errors/error-responses.js';
import { RecordRefusedError } from '../../kafka-driver.js';

/** No record could be made of an answer. */
export class UnspeakableAnswer extends Error {}

/** What the sender is told in place of an answer that can't reach it; undefined where nothing can. */
export function answerInstead(error: unknown): MessageError | undefined {
  const isTooLarge = error instanceof RecordRefusedError && error.isTooLarge;
  if (isTooLarge)
    return {
      code: 'REPLY_TOO_LARGE',
      message:
        'What was asked for is done, and the answer is larger than the reply topic takes. Ask for less at once (a smaller limit), or raise max.message.bytes of that topic.',
      retryable: false,
    };
  if (!(error instanceof UnspeakableAnswer)) return undefined;
  const message = 'What was asked for is done, and of its answer no reply could be made; the log tells more.';
  return { code: 'REPLY_FAILED', message, retryable: false };
}
