const TOKEN = 'people-console-token';

/** Kept in this tab alone, and gone with it. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? '',
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** What was refused, as the problem that the service answered with. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Beside the console, whatever prefix it has. */
const place = (path) => new URL(`./${path}`, location.href);

/** The text of an answer, and its status. @throws Refused, or TypeError where there is no answer */
async function answerTo(path, { method = 'GET', body, accepted = [] } = {}) {
  const known = token.get();
  const response = await fetch(place(path), {
    method,
    headers: {
      ...(known && { authorization: `Bearer ${known}` }),
      ...(body && { 'content-type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
    cache: 'no-store',
    signal: AbortSignal.timeout(15_000),
  });
  const text = await response.text();
  if (!response.ok && !accepted.includes(response.status))
    throw new Refused(response.status, detailOf(text, response));
  return text;
}

function detailOf(text, { status, statusText }) {
  try {
    return JSON.parse(text).detail ?? `${status} ${statusText}`;
  } catch {
    return `${status} ${statusText}`;
  }
}

export const read = async (path, accepted) => JSON.parse(await answerTo(path, { accepted }));
export const readText = (path) => answerTo(path);
export const act = async (path, body) => JSON.parse(await answerTo(path, { method: 'POST', body }));
