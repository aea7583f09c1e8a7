import type { JsonValue } from './lossless-json.js';
import { parseJson, stringifyJson } from './lossless-json.js';

/**
 * Applies a JSON Merge Patch (RFC 7396), text to text: numbers and the order of keys stay as they are on both sides.
 *
 * @throws JsonError
 */
export function mergeJson(target: string, patch: string): string {
  return stringifyJson(merge(parseJson(target, 'map'), parseJson(patch, 'map')));
}

function merge(target: JsonValue, patch: JsonValue): JsonValue {
  if (!(patch instanceof Map)) return patch;
  const merged = new Map(target instanceof Map ? target : []);
  for (const [key, value] of patch) {
    if (value === null) merged.delete(key);
    else merged.set(key, merge(merged.get(key) ?? null, value));
  }
  return merged;
}
