import { personOf, SEEDED, seededId, toJson } from './people.mjs';

/** Requests that are made before a turn: to make them meanwhile would cost the generator's CPU, which is the machine's. */
const COUNT = 4096;
const random = (below) => Math.floor(Math.random() * below);

const MAKE = {
  get: () => ({ method: 'GET', path: `/people/${seededId(random(SEEDED))}` }),
  create: () => ({ method: 'POST', path: '/people', body: toJson(personOf(random(SEEDED))) }),
  // Those of the upper half, as nobody asks for their names.
  patch: (tag) => ({
    method: 'PATCH',
    path: `/people/${seededId(SEEDED / 2 + random(SEEDED / 2))}`,
    body: JSON.stringify({ name: `Renamed ${tag} ${random(1e6)}` }),
  }),
};

/** @param tag of the names that a patch gives */
export const requestsOf = (operation, tag) => Array.from({ length: COUNT }, () => MAKE[operation](tag));

/** How many people the first `count` of the requests are about, which are sent over and over. */
export const peopleOf = (requests, count) => new Set(requests.slice(0, count).map(({ path }) => path)).size;
