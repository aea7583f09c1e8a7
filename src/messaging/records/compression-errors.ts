/** Compressed bytes are not what their codec makes. */
export class CorruptBytesError extends Error {
  override readonly name = 'CorruptBytesError';
}

/** Decompressed it would have more bytes than may be taken; with the code that node:zlib gives to the same. */
export class TooManyBytesError extends Error {
  override readonly name = 'TooManyBytesError';
  readonly code = 'ERR_BUFFER_TOO_LARGE';

  constructor(atMost: number) {
    super(`Decompressed it has more than ${atMost} bytes.`);
  }
}
