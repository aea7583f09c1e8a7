/** Characters of anything that came from outside which an answer, a log line or a dead letter repeats at most. */
export const SHOWN_CHARACTERS = 200;
/** Problems that one answer names at most. */
export const PROBLEMS_AT_MOST = 20;
/** What a whole text of ours may have, which holds several parts from outside. */
export const TEXT_CHARACTERS = 2000;

/** `text`, or its beginning and `…` where it is longer than `characters`. No pair of surrogates is cut in two. */
export function shown(text: string, characters = SHOWN_CHARACTERS): string {
  if (text.length <= characters) return text;
  const last = text.charCodeAt(characters - 2);
  const isHighSurrogate = last >= 0xd800 && last <= 0xdbff;
  return `${text.slice(0, characters - (isHighSurrogate ? 2 : 1))}…`;
}

/** The first problems of a list, as far as an answer names them. */
export const shownFields = (fields: readonly { pointer: string; detail: string }[]) =>
  fields
    .slice(0, PROBLEMS_AT_MOST)
    .map(({ pointer, detail }) => ({ pointer: shown(pointer), detail: shown(detail) }));
