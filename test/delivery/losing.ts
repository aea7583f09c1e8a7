import { fatalError } from '../support/lossy-proxy.js';
import type { Watcher } from '../support/wire.js';

export interface Losses {
  random: () => number;
  onLoss: () => void;
}

/** What changes something, as it stands on the wire. */
const WRITES = /COMMIT\0|people_(create|update|remove)\0|nestjs_people_(inbox|relay|outbox)_|INSERT INTO/;
const CHANCE = 0.004;
/** What PgBouncer says of a server connection that is lost. */
const LAST_WORDS = fatalError('08P01', 'server conn crashed?');

/** Loses the answers of writes now and then: the server has done what was asked, and half of the time a pooler says that it is gone. */
export function losing({ random, onLoss }: Losses): Watcher {
  return {
    request: (piece) => {
      if (!WRITES.test(piece.toString('latin1')) || random() > CHANCE) return 'pass';
      onLoss();
      return 'lose';
    },
    response: (piece) => piece,
    lastWords: () => (random() < 0.5 ? LAST_WORDS : undefined),
  };
}
