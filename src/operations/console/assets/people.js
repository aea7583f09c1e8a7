import { readText } from './api.js';
import { attempt, byId, element, showList, tell } from './dom.js';

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i;

/** The text of a person, as it is stored: parsing it would change numbers. */
const shownPerson = (text) => element('pre', { tabIndex: 0 }, text);

/** The persons of a page as the texts that they are. */
function textsOf(page) {
  const items = [];
  let depth = 0;
  let start = 0;
  let isInText = false;
  for (let at = page.indexOf('[') + 1; at < page.length; at++) {
    const character = page[at];
    if (isInText) {
      if (character === '\\') at++;
      else if (character === '"') isInText = false;
    } else if (character === '"') isInText = true;
    else if (character === '{' || character === '[') {
      if (depth++ === 0) start = at;
    } else if (character === '}' || character === ']') {
      if (depth === 0) break;
      if (--depth === 0) items.push(page.slice(start, at + 1));
    }
  }
  return items;
}

async function search(text, cursor) {
  const more = byId('more-people');
  more.hidden = true;
  if (UUID.test(text)) return showList(byId('found'), [await readText(`people/${text}`)], shownPerson);
  const query = new URLSearchParams({ name: text, limit: '20', ...(cursor && { cursor }) });
  const page = await readText(`people?${query}`);
  const { next } = JSON.parse(page);
  showList(byId('found'), textsOf(page), shownPerson, 'Nobody has this name.');
  more.hidden = next === null;
  more.onclick = () => attempt(() => search(text, next));
}

export function startPeople() {
  byId('people-form').addEventListener('submit', (event) => {
    event.preventDefault();
    attempt(async () => {
      await search(byId('person').value.trim());
      tell('People are found.');
    });
  });
}
