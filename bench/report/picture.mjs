import { median } from '../harness/ratios.mjs';

/** What the picture shows: a group of bars each, as long as the operations per second are. */
const GROUPS = [
  ['http', 'get-32', 'HTTP: get by id, 32 connections'],
  ['http', 'create-32', 'HTTP: create, 32 connections'],
  ['service', 'get-32', 'Service: get, 32 callers'],
  ['service', 'create-32', 'Service: create, 32 callers'],
  ['kafka', 'create', 'Kafka: messages applied'],
  ['bulk', 'import', 'Import of NDJSON'],
];
const WIDTH = 900;
const LABEL = 440;
const BAR = WIDTH - LABEL - 60;
const ROW = 18;
const HEADING = 34;
const FONT = 'font-family="system-ui, sans-serif"';

/** A plain SVG: nestjs-people's bars in one colour, the others' in another, the number is the ratio to nestjs-people's first. */
export function drawPicture(results) {
  const parts = [];
  let y = 8;
  for (const [section, heat, heading] of GROUPS) {
    const bars = barsOf(results[section], heat);
    if (bars.length === 0) continue;
    parts.push(text(8, y + 22, heading, 'font-size="14" font-weight="600"'));
    y += HEADING;
    const longest = Math.max(...bars.map(({ ratio }) => ratio));
    for (const { title, ratio, isOurs } of bars) {
      const length = Math.max(1, (ratio / longest) * BAR).toFixed(1);
      const colour = isOurs ? '#2f6fdb' : '#9aa5b1';
      parts.push(
        text(LABEL - 8, y + 12, title, 'font-size="11" text-anchor="end"'),
        `<rect x="${LABEL}" y="${y + 2}" width="${length}" height="${ROW - 6}" fill="${colour}"/>`,
        text(LABEL + Number(length) + 6, y + 12, ratio.toFixed(2), 'font-size="11"'),
      );
      y += ROW;
    }
  }
  const height = y + 10;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="Operations per second beside nestjs-people’s">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

/** The fastest first. */
function barsOf(result, heat) {
  if (!result) return [];
  const speed = ({ key }) => median(result.turns[key][heat].map(({ perSecond }) => perSecond));
  const [base] = result.contestants;
  return result.contestants
    .map((contestant) => ({
      title: contestant.title,
      ratio: speed(contestant) / speed(base),
      isOurs: contestant.key.startsWith('people'),
    }))
    .sort((a, b) => b.ratio - a.ratio);
}

const escape = (said) => said.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const text = (x, y, said, more) =>
  `<text x="${x.toFixed(1)}" y="${y}" ${FONT} ${more} fill="#1f2933">${escape(said)}</text>`;
