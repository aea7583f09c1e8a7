import { readFileSync } from 'node:fs';

const { scripts } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

/** What `npm start` gives to Node: all contestants that are programs of Node have it, so that it makes no difference between them. */
export const NODE_FLAGS = scripts.start.split(' ').slice(1, -1);
