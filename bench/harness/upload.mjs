import { createReadStream, createWriteStream } from 'node:fs';
import { request } from 'node:http';
import { once } from 'node:events';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { dataJsonOf } from './people.mjs';
import { answerParent } from './process.mjs';

// The process that makes the people of an import and sends them, so that the CPU time and memory of the service are its own.

const LINES_AT_ONCE = 500;

const FORMATS = {
  ndjson: (n) => `{"name":"Person ${n}","data":${dataJsonOf(n)}}\n`,
  // There is nothing in it that COPY would want escaped.
  copy: (n) => `Person ${n}\t${dataJsonOf(n)}\n`,
};

function* lines(rows, format) {
  for (let from = 0; from < rows; from += LINES_AT_ONCE) {
    const count = Math.min(LINES_AT_ONCE, rows - from);
    yield Buffer.from(Array.from({ length: count }, (_, n) => format(from + n)).join(''));
  }
}

answerParent({
  /** Writes the people in each format; returns its file. */
  async files({ directory, rows }) {
    const files = {};
    for (const [name, format] of Object.entries(FORMATS)) {
      files[name] = path.join(directory, `people.${name}`);
      await pipeline(Readable.from(lines(rows, format)), createWriteStream(files[name]));
    }
    return files;
  },
  /** Sends a file, or as many people as they are made; resolves with the seconds until the answer. */
  async upload({ url, file, rows }) {
    const begin = performance.now();
    const headers = { 'content-type': 'application/x-ndjson' };
    const sent = request(`${url}/people/bulk`, { method: 'POST', headers });
    const answered = once(sent, 'response');
    answered.catch(() => undefined);
    const source = file ? createReadStream(file) : Readable.from(lines(rows, FORMATS.ndjson));
    // What it answers tells more than that it hung up.
    await Promise.race([pipeline(source, sent), answered]);
    const [response] = await answered;
    const text = (await response.setEncoding('utf8').toArray()).join('');
    if (response.statusCode !== 201 || JSON.parse(text).inserted !== rows)
      throw new Error(`The import answered ${response.statusCode}: ${text}`);
    return (performance.now() - begin) / 1000;
  },
});
