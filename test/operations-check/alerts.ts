import { existsSync, readFileSync } from 'node:fs';

const ALERTS = 'docs/operations/alerts.yml';
const METRIC = /\b(?:people|http|up)[a-z_:]*\b(?:\{[^}]*\})?/g;
const MATCHER = /(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g;

/** An alert rule, as far as it tells what it looks at. */
export interface Alert {
  name: string;
  /** Metrics, with the labels that its expression asks for. */
  selectors: string[];
}

/** The rules that are handed out to operators; none where there is no such file. */
export function readAlerts(): Alert[] {
  if (!existsSync(ALERTS)) return [];
  return readFileSync(ALERTS, 'utf8')
    .split(/^\s*- alert:\s*/m)
    .slice(1)
    .map((text) => {
      const [name = ''] = text.split('\n');
      const [, expression = ''] = /^\s*expr:\s*([\s\S]*?)(?=^\s*(?:for|labels|annotations|keep_firing_for):)/m.exec(text) ?? []; // prettier-ignore
      // What it is compared with, or is a part of, tells of nothing; and how long something takes can't be seen by what has moved.
      const [told = ''] = expression.split(/ (?:\/|<|unless) /);
      const selectors = expression.includes('histogram_quantile') ? [] : (told.match(METRIC) ?? []);
      return { name: name.trim(), selectors };
    });
}

/** Names of those that look at a series that has moved. How far it has to move, and for how long, is theirs. */
export const alertsFor = (alerts: readonly Alert[], moved: Iterable<string>): string[] => {
  const series = [...moved];
  const isMet = ({ selectors }: Alert) =>
    selectors.some((selector) => series.some((each) => matches(selector, each)));
  return alerts.filter(isMet).map(({ name }) => name);
};

function matches(selector: string, series: string): boolean {
  const [metric = '', matchers = ''] = selector.split('{');
  const [name = '', labels = ''] = series.split('{');
  // A histogram is told by its count.
  const plain = (text: string) => text.trim().replace(/_(bucket|sum|count)$/, '');
  if (plain(metric) !== plain(name)) return false;
  return [...matchers.matchAll(MATCHER)].every(([, label, operator, wanted]) => {
    if (label === 'le') return true;
    const [, value = ''] = new RegExp(`\\b${label!}="([^"]*)"`).exec(labels) ?? [];
    const isEqual = operator!.endsWith('~') ? new RegExp(`^(?:${wanted!})$`).test(value) : value === wanted;
    return operator!.startsWith('!') ? !isEqual : isEqual;
  });
}
