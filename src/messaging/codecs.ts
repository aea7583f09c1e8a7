import type { Codec } from './record-batches.js';
export const decompress = (codec: Codec, _bytes: Buffer, _atMost: number): Promise<Buffer> =>
  Promise.reject(new Error(`${codec} is not read yet`));
