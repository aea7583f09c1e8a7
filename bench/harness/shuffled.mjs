/** The items in another order each time, so that none has its turn always behind the same one. */
export function shuffled(items) {
  const rest = [...items];
  return items.map(() => rest.splice(Math.floor(Math.random() * rest.length), 1)[0]);
}
