/**
 * Reads settings from a file, the environment and flags, in one pass: flag > environment > file > default.
 * Nothing unknown is passed over: a misspelt key is refused with the key that was probably meant.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse as parseYaml } from 'yaml';
import { ChairError } from '../broker/errors.js';
import { listSettings, type Setting, type SettingKey, type Settings, settingsSchema } from './config.js';

/** Looked for in the working directory when `--config` is not given. */
export const DEFAULT_CONFIG_FILES = ['musical-chair.yaml', 'musical-chair.yml', 'musical-chair.json'] as const;

const ENV_PREFIX = 'MUSICAL_CHAIR_';
/** Variables that are not settings: the file's path, and switches of the test suite. */
const ENV_OTHER = /^MUSICAL_CHAIR_(CONFIG$|TEST_)/;

export interface SettingSources {
  /** Values of flags by setting key, as commander gives them. */
  readonly flags?: Readonly<Partial<Record<SettingKey, string | boolean>>>;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `--config`; when undefined, MUSICAL_CHAIR_CONFIG, then the default files. */
  readonly file?: string;
  readonly cwd?: string;
}

type Tree = Record<string, unknown>;

/** Levenshtein distance between two short words. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, change));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The known word nearest to the one that came. */
export function nearest(word: string, known: readonly string[]): string {
  const ranked = known.map((k) => ({ k, d: editDistance(word.toLowerCase(), k.toLowerCase()) })).sort((x, y) => x.d - y.d);
  return ranked[0]?.k ?? '';
}

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readTree(file: string): Tree {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ChairError('FILE_NOT_FOUND', `the configuration file ${file} cannot be read`, {
      todo: 'Give --config the path of a YAML or JSON file.',
      cause,
    });
  }
  let tree: unknown;
  try {
    tree = file.endsWith('.json') ? JSON.parse(text) : (parseYaml(text) ?? {});
  } catch (cause) {
    const came = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    throw new ChairError('CONFIG_INVALID', `${file} is not readable`, { expected: file.endsWith('.json') ? 'JSON' : 'YAML', came, cause });
  }
  if (isTree(tree)) return tree;
  throw new ChairError('CONFIG_INVALID', `${file} has no settings`, { expected: 'keys such as cluster: and gateway:', came: typeof tree });
}

/** Text from the environment or a flag to the setting's type; what does not convert stays text, and the schema refuses it. */
function convert(setting: Setting, text: string | boolean): unknown {
  if (typeof text === 'boolean') return text;
  if (setting.type === 'boolean') return text === 'true' || text === '1' ? true : text === 'false' || text === '0' ? false : text;
  if (setting.type === 'string' || text.trim() === '' || Number.isNaN(Number(text))) return text;
  return Number(text);
}

function put(tree: Tree, key: string, value: unknown): void {
  const [head = '', ...rest] = key.split('.');
  if (rest.length === 0) {
    tree[head] = value;
    return;
  }
  const child = tree[head];
  const inner: Tree = isTree(child) ? child : {};
  tree[head] = inner;
  put(inner, rest.join('.'), value);
}

function chooseFile(sources: SettingSources, cwd: string): string | undefined {
  const named = sources.file ?? sources.env?.[`${ENV_PREFIX}CONFIG`];
  if (named !== undefined) return path.resolve(cwd, named);
  return DEFAULT_CONFIG_FILES.map((f) => path.join(cwd, f)).find((f) => existsSync(f));
}

interface SchemaIssue {
  readonly code?: string;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  readonly keys?: readonly string[];
}

/** One sentence for the first thing the schema refuses, naming where the value came from. */
function refusal(
  issue: SchemaIssue,
  origin: ReadonlyMap<string, string>,
  file: string | undefined,
  settings: readonly Setting[],
): ChairError {
  const where = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const key = [...(where === '' ? [] : [where]), issue.keys?.[0] ?? ''].join('.');
    const known = [
      ...settings.map((s) => s.key),
      ...new Set(settings.flatMap((s) => (s.key.includes('.') ? [s.key.split('.')[0] ?? ''] : []))),
    ];
    return new ChairError('CONFIG_INVALID', `${key} in ${file ?? 'the configuration'} is not a setting`, {
      todo: `Did you mean ${nearest(key, known)}?`,
    });
  }
  const setting = settings.find((s) => s.key === where);
  return new ChairError('CONFIG_INVALID', `${origin.get(where) ?? `${where} in ${file ?? 'the configuration'}`} is wrong`, {
    expected:
      setting === undefined
        ? issue.message
        : [setting.type === 'string' ? issue.message : `${setting.type} ${setting.range}`.trim()].join(),
    ...(setting === undefined ? {} : { todo: setting.description }),
  });
}

/** Throws CONFIG_INVALID (unknown key, wrong value) or FILE_NOT_FOUND (a file that was named). */
export function loadSettings(sources: SettingSources): Settings {
  const settings = listSettings();
  const cwd = sources.cwd ?? process.cwd();
  const file = chooseFile(sources, cwd);
  const tree: Tree = file === undefined ? {} : structuredClone(readTree(file));
  /** Where a value came from when it was not the file, for the message. */
  const origin = new Map<string, string>();
  for (const [name, text] of Object.entries(sources.env ?? {})) {
    if (!name.startsWith(ENV_PREFIX) || ENV_OTHER.test(name) || text === undefined) continue;
    const setting = settings.find((s) => s.env === name);
    if (setting === undefined) {
      const todo = `Did you mean ${nearest(
        name,
        settings.map((s) => s.env),
      )}?`;
      throw new ChairError('CONFIG_INVALID', `the environment variable ${name} is not a setting`, { todo });
    }
    put(tree, setting.key, convert(setting, text));
    origin.set(setting.key, `${name}=${text}`);
  }
  for (const setting of settings) {
    const value = sources.flags?.[setting.key];
    if (value === undefined) continue;
    put(tree, setting.key, convert(setting, value));
    origin.set(setting.key, `--${setting.flag}${value === true ? '' : ` ${value}`}`);
  }
  const result = settingsSchema.safeParse(tree);
  if (result.success) return result.data;
  const issues: readonly SchemaIssue[] = result.error.issues;
  const first = issues.find((i) => i.code === 'unrecognized_keys') ?? issues[0];
  if (first === undefined) throw new ChairError('CONFIG_INVALID', 'the configuration is wrong');
  throw refusal(first, origin, file, settings);
}
