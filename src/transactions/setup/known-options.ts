/** What an option may be: a word of these, or a test with what it asks for. */
type Rule =
  | 'a boolean'
  | 'a function'
  | 'a class'
  | 'a text'
  | 'a whole number'
  /** By whoever takes it. */
  | 'checked later'
  | readonly string[]
  | { expected: string; test: (value: unknown) => boolean }
  | { options: Rules };

/** What each option of a module may be, by its name. */
export type Rules = Readonly<Record<string, Rule>>;

/** The same with all options of a type, none left out. */
export type RulesFor<Options> = { readonly [Name in keyof Required<Options>]: Rule };

/** Options that no factory gives, as they stand beside it. */
const BESIDE_A_FACTORY = new Set(['imports', 'inject', 'useFactory']);

/**
 * The factory of options, whose result is checked, and what stands beside it, as a misspelt option would be one without effect.
 *
 * @param where for people to read: `PeopleModule.forRoot`
 */
export function checkedBy<Options extends object>(
  rules: Rules,
  where: string,
  given: {
    // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the factory's parameters are what `inject` names
    useFactory: (...dependencies: any[]) => Options | Promise<Options>;
  },
): (...dependencies: unknown[]) => Promise<Options> {
  return async (...dependencies) => {
    const options = await given.useFactory(...dependencies);
    if (typeof (options as unknown) !== 'object' || options === null)
      throw new Error(`${where}: useFactory must give an object, not ${told(options)}.`);
    const beside = Object.entries(given).filter(([name]) => !BESIDE_A_FACTORY.has(name));
    const all: Record<string, unknown> = { ...Object.fromEntries<unknown>(beside), ...options };
    checkOptions(where, all, rules);
    return options;
  };
}

/** @throws Error names each option that is not known, with the nearest that is, or is of the wrong kind */
function checkOptions(where: string, given: object, rules: Rules): void {
  const problems = problemsOf(given, rules, rules, '');
  if (problems.length > 0) throw new Error(`${where}: ${problems.join('; ')}`);
}

function problemsOf(given: object, rules: Rules, all: Rules, path: string): string[] {
  return Object.entries(given as Record<string, unknown>).flatMap(([name, value]) => {
    const place = `${path}${name}`;
    const rule = Object.hasOwn(rules, name) ? rules[name]! : undefined;
    if (!rule) return [`there is no option ${place}${suggestion(name, all)}`];
    if (value === undefined) return [];
    if (typeof rule === 'object' && 'options' in rule)
      return typeof value === 'object' && value !== null
        ? problemsOf(value, rule.options, all, `${place}.`)
        : [`${place}: ${told(value)} is not an object`];
    const expected = misfit(rule, value);
    return expected === undefined ? [] : [`${place}: ${told(value)} is not ${expected}`];
  });
}

/** What was to be given; undefined where it was. */
function misfit(rule: Exclude<Rule, { options: Rules }>, value: unknown): string | undefined {
  if (typeof rule === 'string') return KINDS[rule](value) ? undefined : rule;
  if ('test' in rule) return rule.test(value) ? undefined : rule.expected;
  return rule.includes(value as string) ? undefined : `one of ${rule.join(', ')}`;
}

const KINDS = {
  'checked later': () => true,
  'a boolean': (value: unknown) => typeof value === 'boolean',
  'a function': (value: unknown) => typeof value === 'function',
  // An arrow function, or a method, can't be called with `new`.
  'a class': (value: unknown) => typeof value === 'function' && typeof value.prototype === 'object',
  'a text': (value: unknown) => typeof value === 'string' && value !== '',
  'a whole number': (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0,
};

function told(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object';
  return typeof value === 'string' ? `'${value}'` : String(value);
}

/** The option that was probably meant, wherever it belongs. */
function suggestion(name: string, rules: Rules): string {
  const near = pathsOf(rules)
    .map((path) => ({ path, distance: distance(name.toLowerCase(), path.split('.').at(-1)!.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0];
  return near && near.distance <= Math.max(1, name.length / 3) ? `; did you mean ${near.path}?` : '';
}

const pathsOf = (rules: Rules): string[] =>
  Object.entries(rules).flatMap(([name, rule]) =>
    typeof rule === 'object' && 'options' in rule
      ? [name, ...pathsOf(rule.options).map((path) => `${name}.${path}`)]
      : [name],
  );

/** How many letters are to be changed, left out or added (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, place) => place);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}
