export const byId = (id) => document.getElementById(id);

/** An element with texts, never markup: what came from outside is shown as it is. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(
    ...children
      .filter((child) => child !== undefined && child !== null)
      .map((child) => (child instanceof Node ? child : String(child))),
  );
  return made;
}

/** Shows a list, or that it is empty. */
export function showList(list, items, toItem, whenEmpty = 'None.') {
  list.replaceChildren(
    ...(items.length > 0
      ? items.map((item) => element('li', {}, ...[toItem(item)].flat()))
      : [element('li', { className: 'faint' }, whenEmpty)]),
  );
}

export const timeOf = (text) => (text === null ? '' : new Date(text).toLocaleString());

export const faint = (...children) => element('span', { className: 'faint' }, ...children);

/** Says something to whoever looks or listens. */
export function tell(message, isBad = false, where = byId('status')) {
  where.textContent = message;
  where.className = isBad ? 'bad' : 'good';
}

/** Runs what somebody asked for, and tells how it ended. */
export async function attempt(work, where) {
  try {
    await work();
  } catch (error) {
    tell(error.message, true, where);
  }
}
