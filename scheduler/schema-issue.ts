/** What a schema refuses, as our errors say it: where, what was expected, what came. For files that people write. */
import type { z } from 'zod';

export interface SchemaIssue {
  /** `stages[2].shares`, or '' at the top. */
  readonly where: string;
  readonly expected: string;
  readonly came: string | undefined;
}

/** The first thing that is wrong; one is enough to begin with. */
export function firstIssue(error: z.ZodError): SchemaIssue {
  const [issue] = error.issues;
  const where = (issue?.path ?? [])
    .map((key, at) => (typeof key === 'number' ? `[${key}]` : `${at === 0 ? '' : '.'}${String(key)}`))
    .join('');
  const [, unknown] = /^Unrecognized keys?: (.*)$/.exec(issue?.message ?? '') ?? [];
  if (unknown !== undefined) return { where, expected: 'keys that are known here', came: unknown };
  const [, expected, came] = /^Invalid input: expected (.*), received (.*)$/.exec(issue?.message ?? '') ?? [];
  if (expected === undefined) return { where, expected: issue?.message ?? 'something else', came: undefined };
  return { where, expected: NAMES[expected] ?? expected, came: came === 'undefined' ? 'nothing' : (NAMES[came ?? ''] ?? came) };
}

const NAMES: Readonly<Record<string, string>> = {
  array: 'a list',
  object: 'keys with values',
  string: 'a text',
  number: 'a number',
  null: 'nothing',
};
