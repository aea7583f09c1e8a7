import { Session } from 'node:inspector/promises';
import { writeFile } from 'node:fs/promises';

const INTERVAL_MICROS = 200;
let session;

/** Begins to sample what this process's main thread does. */
export async function startProfile() {
  session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.setSamplingInterval', { interval: INTERVAL_MICROS });
  await session.post('Profiler.start');
}

/**
 * Ends it. What is written to `file` can be opened by Chrome's and Edge's developer tools, and by speedscope.
 *
 * @returns origin → µs of the busy time that was spent there itself, see `originOf`
 */
export async function stopProfile(file) {
  const { profile } = await session.post('Profiler.stop');
  session.disconnect();
  await writeFile(file, JSON.stringify(profile));
  return timeByOrigin(profile);
}

function timeByOrigin({ nodes, samples, timeDeltas }) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const node of nodes) for (const child of node.children ?? []) byId.get(child).parent = node;
  const times = {};
  for (const [index, id] of samples.entries()) {
    const node = byId.get(id);
    node.origin ??= originOf(node);
    // The delta of a sample is the time since the one before; what it is taken for errs both ways alike.
    if (node.origin !== IDLE) times[node.origin] = (times[node.origin] ?? 0) + timeDeltas[index];
  }
  return times;
}

const IDLE = '(idle)';
const OF_V8 = { '(idle)': IDLE, '(garbage collector)': 'garbage collection' };
const PACKAGES = [
  ['pg', /^pg(-|$)|^postgres-|^split2$/],
  ['Fastify and its router', /^(@?fastify|find-my-way|@nestjs\/platform-fastify|avvio|light-my-request)/],
  ['Nest and rxjs', /^(@nestjs\/|rxjs|reflect-metadata)/],
  ['OpenTelemetry API', /^@opentelemetry/],
];
const OF_NODE = [
  ['Node: HTTP', /^node:(_http|internal\/http)/],
  [
    'Node: sockets, streams, events',
    /^node:(net|events|internal\/(streams?|stream_base)|stream|buffer|internal\/buffer|tls)/,
  ],
  [
    'Node: async hooks, promises, timers',
    /async_hooks|task_queues|timers|async_local_storage|async_context|promises/,
  ],
];
const WRITE = /^(writev|writeBuffer|write\w+String)$/;

/** Whose code a frame is; of native writes, whose socket it was. */
function originOf(node) {
  const { functionName, url } = node.callFrame;
  // What the sampling takes itself.
  if (isBelow(node, /^node:inspector/)) return IDLE;
  if (Object.hasOwn(OF_V8, functionName)) return OF_V8[functionName];
  if (url === '') {
    if (WRITE.test(functionName))
      return isBelow(node, /node_modules\/pg\//) ? 'written to PostgreSQL' : 'written to clients';
    return node.parent && functionName !== '(program)' ? originOf(node.parent) : 'native, as of libuv and V8';
  }
  const package_ = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (package_) return PACKAGES.find(([, pattern]) => pattern.test(package_))?.[0] ?? package_;
  if (url.startsWith('node:')) return OF_NODE.find(([, pattern]) => pattern.test(url))?.[0] ?? 'Node: other';
  const room = /dist\/src\/(\w+)/.exec(url)?.[1];
  return room ? `ours: ${room}/` : 'other';
}

function isBelow(node, pattern) {
  for (let each = node; each; each = each.parent) if (pattern.test(each.callFrame.url)) return true;
  return false;
}
