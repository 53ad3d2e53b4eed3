/**
 * Reads settings from a file, the environment and flags, in one pass: flag > environment > file > default.
 * Nothing unknown is passed over: a misspelt key is refused with the key that was probably meant, and the line it stands on.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { ChairError, toChairError } from '../broker/errors.js';
import { listSettings, type Setting, type SettingKey, type Settings, settingsSchema } from './config.js';
import { withHome } from './home.js';
import { isTree, readSettingsFile, type SettingsFile, type Tree } from './settings-file.js';

/** Looked for in the working directory when `--config` is not given. */
export const DEFAULT_CONFIG_FILES = ['musical-chair.yaml', 'musical-chair.yml', 'musical-chair.json'] as const;
/** Looked for after those: what `gateway install` writes for the whole machine, and what an agent's bundle does. */
export const SYSTEM_CONFIG_FILE = '/etc/musical-chair/musical-chair.yaml';
const SYSTEM_CONFIG_FILES = [SYSTEM_CONFIG_FILE, '/etc/musical-chair/agent.yaml'];

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
  /** Default: those in /etc/musical-chair. */
  readonly systemFiles?: readonly string[];
}

/** Something that is wrong with the settings, and where. */
export interface SettingFinding {
  /** The setting, or what was written in its place. */
  readonly key: string;
  /** In the file; undefined when it came from elsewhere. */
  readonly line: number | undefined;
  readonly error: ChairError;
}

export interface CheckedSettings {
  /** Undefined when anything is wrong. */
  readonly settings: Settings | undefined;
  /** Everything that is wrong, unknown keys first. */
  readonly findings: readonly SettingFinding[];
  /** The file that was read; undefined when there is none. */
  readonly file: string | undefined;
  /** Of each setting that is not the default: where its value came from, for people. */
  readonly origins: ReadonlyMap<SettingKey, string>;
}

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

function valueAt(tree: unknown, keys: readonly PropertyKey[]): unknown {
  return keys.reduce<unknown>((at, key) => (isTree(at) ? at[String(key)] : undefined), tree);
}

/** The file that is read; undefined when none was named and none is there. */
export function configFile(sources: Pick<SettingSources, 'file' | 'env' | 'cwd' | 'systemFiles'>): string | undefined {
  const cwd = sources.cwd ?? process.cwd();
  const named = sources.file ?? sources.env?.[`${ENV_PREFIX}CONFIG`];
  if (named !== undefined) return path.resolve(cwd, withHome(named));
  return [...DEFAULT_CONFIG_FILES.map((f) => path.join(cwd, f)), ...(sources.systemFiles ?? SYSTEM_CONFIG_FILES)].find((f) =>
    existsSync(f),
  );
}

interface SchemaIssue {
  readonly code?: string;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  readonly keys?: readonly string[];
}

/** What is known while a refusal is put into words. */
interface Context {
  readonly settings: readonly Setting[];
  readonly file: SettingsFile | undefined;
  /** All sources in one. */
  readonly tree: Tree;
  /** `--port 70000`, of settings that did not come from the file. */
  readonly given: ReadonlyMap<string, string>;
}

/** A broker's URL may hold one, and what is wrong is logged. */
function withoutPassword(text: string): string {
  return text.replace(/:\/\/[^@/\s]*@/, '://...@');
}

/** `gateway.port in musical-chair.yaml, line 3,` */
function placeOf(keys: readonly PropertyKey[], { file, given }: Context): { readonly text: string; readonly line: number | undefined } {
  const key = keys.map(String).join('.');
  const said = given.get(key);
  if (said !== undefined) return { text: withoutPassword(said), line: undefined };
  const line = file?.lineOf(keys);
  return { text: `${key} in ${file?.path ?? 'the configuration'}${line === undefined ? '' : `, line ${line},`}`, line };
}

function expectedOf(setting: Setting, issue: SchemaIssue, value: unknown): string {
  if (setting.type === 'boolean') return 'true or false';
  if (setting.type !== 'string') return `${setting.type} ${setting.range}`.trim();
  return typeof value === 'string' ? issue.message : 'text';
}

/** One finding for each thing that the schema refuses. */
function findingsOf(issue: SchemaIssue, context: Context): SettingFinding[] {
  const { settings, tree, given } = context;
  if (issue.code === 'unrecognized_keys') {
    const sections = new Set(settings.flatMap(({ key }) => (key.includes('.') ? [key.split('.')[0] ?? ''] : [])));
    const known = [...settings.map(({ key }) => key), ...sections];
    return (issue.keys ?? []).map((last) => {
      const keys = [...issue.path, last];
      const key = keys.map(String).join('.');
      const { text, line } = placeOf(keys, context);
      const todo = `Did you mean ${nearest(key, known)}?`;
      return { key, line, error: new ChairError('CONFIG_INVALID', `${text} is not a setting`, { todo }) };
    });
  }
  const key = issue.path.map(String).join('.');
  const { text, line } = placeOf(issue.path, context);
  const setting = settings.find((s) => s.key === key);
  const value = valueAt(tree, issue.path);
  const came = given.has(key)
    ? {}
    : { came: value === null ? 'nothing' : withoutPassword(JSON.stringify(value) ?? 'nothing').slice(0, 80) };
  const expected = setting === undefined ? issue.message : expectedOf(setting, issue, value);
  const todo = setting === undefined ? {} : { todo: setting.description };
  return [{ key, line, error: new ChairError('CONFIG_INVALID', `${text} is wrong`, { expected, ...came, ...todo }) }];
}

/** What each value allows and all together do not. */
function contradictions(settings: Settings, context: Context): SettingFinding[] {
  const seen = new Map<number, string>();
  return context.settings.flatMap(({ key }) => {
    const port = valueAt(settings, key.split('.'));
    if (!/^gateway\..*port$/i.test(key) || typeof port !== 'number' || port === 0) return [];
    const other = seen.get(port);
    seen.set(port, key);
    if (other === undefined) return [];
    const { text, line } = placeOf(key.split('.'), context);
    const error = new ChairError('CONFIG_INVALID', `${text} is wrong`, {
      expected: 'a port of its own for each listener',
      came: `${port}, which is ${other}, too`,
    });
    return [{ key, line, error }];
  });
}

/** Every path with the home directory in it, as a shell would have put it there. */
function withHomes(settings: Settings): Settings {
  const { credentials, gateway, agent } = settings;
  return {
    ...settings,
    credentials: withHome(credentials),
    gateway: { ...gateway, directory: withHome(gateway.directory) },
    agent: { ...agent, directory: withHome(agent.directory), tokenFile: withHome(agent.tokenFile) },
  };
}

/** Puts the environment over the tree. */
function readEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  settings: readonly Setting[],
  put: (setting: Setting, text: string) => void,
): SettingFinding[] {
  return Object.entries(env).flatMap(([name, text]) => {
    if (!name.startsWith(ENV_PREFIX) || ENV_OTHER.test(name) || text === undefined) return [];
    const setting = settings.find((s) => s.env === name);
    if (setting !== undefined) {
      put(setting, text);
      return [];
    }
    const todo = `Did you mean ${nearest(
      name,
      settings.map((s) => s.env),
    )}?`;
    return [
      {
        key: name,
        line: undefined,
        error: new ChairError('CONFIG_INVALID', `the environment variable ${name} is not a setting`, { todo }),
      },
    ];
  });
}

/** Reads everything, and says everything that is wrong. Throws only when a file that was named is not there. */
export function checkSettings(sources: SettingSources): CheckedSettings {
  const settings = listSettings();
  const file = configFile(sources);
  let read: SettingsFile | undefined;
  try {
    read = file === undefined ? undefined : readSettingsFile(file);
  } catch (error) {
    const refused = toChairError(error, 'CONFIG_INVALID');
    if (refused.code === 'FILE_NOT_FOUND') throw refused;
    return { settings: undefined, findings: [{ key: '', line: undefined, error: refused }], file, origins: new Map() };
  }
  const tree: Tree = structuredClone(read?.tree ?? {});
  // A section of which every key is commented out.
  for (const { key } of settings) {
    const [section = '', leaf] = key.split('.');
    if (leaf !== undefined && tree[section] === null) delete tree[section];
  }
  const given = new Map<string, string>();
  const origins = new Map<SettingKey, string>();
  for (const { key } of settings) {
    const line = read?.lineOf(key.split('.'));
    if (line !== undefined && valueAt(tree, key.split('.')) !== undefined) origins.set(key, `${read?.path}, line ${line}`);
  }
  const unknown = readEnvironment(sources.env ?? {}, settings, (setting, text) => {
    put(tree, setting.key, convert(setting, text));
    given.set(setting.key, `${setting.env}=${text}`);
    origins.set(setting.key, setting.env);
  });
  for (const setting of settings) {
    const value = sources.flags?.[setting.key];
    if (value === undefined) continue;
    put(tree, setting.key, convert(setting, value));
    given.set(setting.key, `--${setting.flag}${value === true ? '' : ` ${value}`}`);
    origins.set(setting.key, `--${setting.flag}`);
  }
  const context = { settings, file: read, tree, given };
  const result = settingsSchema.safeParse(tree);
  const issues: readonly SchemaIssue[] = result.success ? [] : result.error.issues;
  const findings = [
    ...unknown,
    ...[...issues].sort((a, b) => rank(a) - rank(b)).flatMap((issue) => findingsOf(issue, context)),
    ...(result.success ? contradictions(result.data, context) : []),
  ];
  return { settings: result.success && findings.length === 0 ? withHomes(result.data) : undefined, findings, file, origins };
}

/** A misspelt key explains others that are missing. */
function rank(issue: SchemaIssue): number {
  return issue.code === 'unrecognized_keys' ? 0 : 1;
}

/** Throws CONFIG_INVALID (unknown key, wrong value) or FILE_NOT_FOUND (a file that was named). */
export function loadSettings(sources: SettingSources): Settings {
  const { settings, findings } = checkSettings(sources);
  if (settings !== undefined) return settings;
  throw findings[0]?.error ?? new ChairError('CONFIG_INVALID', 'the configuration is wrong');
}
