/** What a schema refuses, as our errors say it: where, what was expected, what came. For files that people write. */
import { z } from 'zod';

export interface SchemaIssue {
  /** `stages[2].shares`, or '' at the top. */
  readonly where: string;
  readonly expected: string;
  readonly came: string | undefined;
}

/** The first thing that is wrong; one is enough to begin with. `schema` is what refused `tree`: it knows which keys there are. */
export function firstIssue(error: z.ZodError, schema: z.ZodType, tree: unknown): SchemaIssue {
  const [issue] = error.issues;
  const where = (issue?.path ?? [])
    .map((key, at) => (typeof key === 'number' ? `[${key}]` : `${at === 0 ? '' : '.'}${String(key)}`))
    .join('');
  const [, unknown] = /^Unrecognized keys?: (.*)$/.exec(issue?.message ?? '') ?? [];
  if (unknown !== undefined) return { where, expected: keysAt(schema, issue?.path ?? []), came: unknown };
  const [, expected, came] = /^Invalid input: expected (.*), received (.*)$/.exec(issue?.message ?? '') ?? [];
  const value = (issue?.path ?? []).reduce<unknown>((at, key) => (at as Readonly<Record<PropertyKey, unknown>> | undefined)?.[key], tree);
  if (expected === undefined) return { where, expected: bounded(issue?.message ?? 'something else'), came: valueText(value) };
  // Of a number the kind says little: `1.5` where a whole one is wanted.
  const kind = came === 'undefined' ? 'nothing' : (NAMES[came ?? ''] ?? came);
  return { where, expected: NAMES[expected] ?? expected, came: typeof value === 'number' ? valueText(value) : kind };
}

const LONGEST_VALUE = 60;

/** What came, as far as a line for people has room. */
function valueText(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value) && JSON.stringify(value).length > LONGEST_VALUE) return `a list of ${value.length}`;
  // Infinity and NaN are numbers of YAML, not of JSON.
  const text = typeof value === 'number' ? String(value) : JSON.stringify(value);
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}...` : text;
}

/** `Too big: expected number to be <=1000`: the limit alone. */
function bounded(message: string): string {
  const [, what = '', limit = '', unit = ''] = /^Too (?:small|big): expected (\w+) to (?:be|have) ([<>]=?\S+)( \w+)?$/.exec(message) ?? [];
  if (what === '') return options(message);
  return `${NAMES[what] ?? what} of ${limit.replace('<=', 'at most ').replace('>=', 'at least ').replace('<', 'below ').replace('>', 'above ')}${unit}`;
}

/** `Invalid option: expected one of "a"|"b"`, `Invalid input: expected 1`: what may stand there. */
function options(message: string): string {
  const [, listed] = /^Invalid (?:option: expected one of|input: expected) (.*)$/.exec(message) ?? [];
  return listed === undefined ? message : listed.replaceAll('"', '').split('|').join(', ');
}

/** The keys that an object may have, `path` being the way to it through objects and lists. */
function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string {
  let at: unknown = schema;
  const bare = (type: unknown): unknown => (type instanceof z.ZodOptional || type instanceof z.ZodDefault ? bare(type.unwrap()) : type);
  for (const key of path) {
    const outer = bare(at);
    at = outer instanceof z.ZodObject ? outer.shape[String(key)] : outer instanceof z.ZodArray ? outer.element : undefined;
  }
  const object = bare(at);
  return object instanceof z.ZodObject ? `keys out of ${Object.keys(object.shape).join(', ')}` : 'keys that are known here';
}

const NAMES: Readonly<Record<string, string>> = {
  array: 'a list',
  tuple: 'a list of two',
  object: 'keys with values',
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  null: 'nothing',
};
