import { startWire, type Verdict, type Watcher, type Wire } from './wire.js';

/** The keys of Kafka's requests. */
export const API = { PRODUCE: 0, FETCH: 1, METADATA: 3, OFFSET_COMMIT: 8, FIND_COORDINATOR: 10 };

/** Sees each request whole, with its size and header. */
export type OnKafkaRequest = (api: number, frame: Buffer) => Verdict;

/** A wire to a broker on this machine; who connects by it is sent to no other address. */
export async function startKafkaWire(target: number, onRequest: OnKafkaRequest): Promise<Wire> {
  const watch = (): Watcher => {
    const asked = new Map<number, number>();
    return {
      request: (frame) => {
        const api = frame.readInt16BE(4);
        asked.set(frame.readInt32BE(8), api);
        return onRequest(api, frame);
      },
      response: (frame) => {
        const correlationId = frame.readInt32BE(4);
        const api = asked.get(correlationId);
        asked.delete(correlationId);
        // Both tell a client where the broker is, as it was configured.
        if (api === API.METADATA || api === API.FIND_COORDINATOR) redirect(frame, target, wire.port);
        return frame;
      },
    };
  };
  const wire = await startWire({ target, watch, split: splitFrames });
  return wire;
}

function redirect(frame: Buffer, from: number, to: number): void {
  const [theirs, ours] = [addressOf(from), addressOf(to)];
  for (let at = frame.indexOf(theirs); at >= 0; at = frame.indexOf(theirs, at + 1)) ours.copy(frame, at);
}

/** As answers hold it: the host's text, then the port. */
function addressOf(port: number): Buffer {
  const address = Buffer.from('127.0.0.1____');
  address.writeInt32BE(port, 9);
  return address;
}

/** Each request and answer begins with its size. */
function splitFrames(data: Buffer): { pieces: Buffer[]; rest: Buffer } {
  const pieces: Buffer[] = [];
  let at = 0;
  while (data.length - at >= 4) {
    const end = at + 4 + data.readInt32BE(at);
    if (end > data.length) break;
    pieces.push(data.subarray(at, end));
    at = end;
  }
  return { pieces, rest: data.subarray(at) };
}
