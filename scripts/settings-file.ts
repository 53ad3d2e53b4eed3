/** A settings file, YAML or JSON: what stands in it, and on which line. Knows nothing of the schema. */
import { readFileSync, statSync } from 'node:fs';
import { type Alias, type Document, isAlias, isMap, isScalar, LineCounter, type Node, parseDocument, visit } from 'yaml';
import { ChairError } from '../broker/errors.js';
import { isTooDeep, MAX_DEPTH } from '../broker/nesting.js';

export type Tree = Record<string, unknown>;

export interface SettingsFile {
  readonly path: string;
  readonly tree: Tree;
  /** Line of the key at this path, from 1; undefined when it is not in the file. */
  lineOf(keys: readonly PropertyKey[]): number | undefined;
}

/** All settings with their comments are 10 kB: what is larger is another file, and reading it as YAML could take minutes. */
const MOST_BYTES = 100_000;

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Throws FILE_NOT_FOUND, CONFIG_INVALID (with the line). */
export function readSettingsFile(file: string): SettingsFile {
  const text = readText(file);
  const isJson = file.endsWith('.json');
  const lines = new LineCounter();
  // YAML 1.2 holds all of JSON: one reader knows the lines of both.
  if (isTooDeep(text)) throw unreadable(file, 'keys with one value each', `values within values, more than ${MAX_DEPTH} times`);
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const error = document.errors.find(({ code }) => !isJson || code === 'DUPLICATE_KEY');
  if (error !== undefined) {
    const line = lines.linePos(error.pos[0]).line;
    if (error.code === 'DUPLICATE_KEY') throw new ChairError('CONFIG_INVALID', `${file}, line ${line}: this key stands there twice`);
    throw unreadable(file, 'YAML', `line ${line}: ${error.message.split('\n')[0] ?? ''}`, error);
  }
  refuseCircle(file, document, lines);
  const tree = isJson ? readable(file, 'JSON', () => JSON.parse(text)) : readable(file, 'YAML', () => document.toJS());
  if (tree !== null && !isTree(tree)) {
    throw new ChairError('CONFIG_INVALID', `${file} has no settings`, {
      expected: 'keys such as cluster: and gateway:',
      came: Array.isArray(tree) ? 'a list' : typeof tree,
    });
  }
  const lineOf = (keys: readonly PropertyKey[]): number | undefined => {
    let node: unknown = document.contents;
    let at: number | undefined;
    for (const key of keys) {
      const pair = isMap(node) ? node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key)) : undefined;
      if (pair === undefined) return undefined;
      at = (pair.key as Node).range?.[0];
      node = pair.value;
    }
    return at === undefined ? undefined : lines.linePos(at).line;
  };
  return { path: file, tree: tree ?? {}, lineOf };
}

function readText(file: string): string {
  try {
    const { size } = statSync(file);
    if (size > MOST_BYTES) {
      throw new ChairError('CONFIG_INVALID', `${file} is no settings file`, { expected: `at most ${MOST_BYTES} bytes`, came: `${size}` });
    }
    return readFileSync(file, 'utf8');
  } catch (cause) {
    if (cause instanceof ChairError) throw cause;
    throw new ChairError('FILE_NOT_FOUND', `the configuration file ${file} cannot be read`, {
      todo: 'Give --config the path of a YAML or JSON file; config init writes one.',
      cause,
    });
  }
}

/** What parses may still name an alias that is not there, or a thousand of them. */
function readable<T>(file: string, expected: 'YAML' | 'JSON', read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw unreadable(file, expected, cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause), cause);
  }
}

/** Throws CONFIG_INVALID for an alias inside of what it names, which would be a value without an end. */
function refuseCircle(file: string, document: Document.Parsed, lines: LineCounter): void {
  const named = new Map<string, Node>();
  const found: Alias[] = [];
  visit(document, {
    Node: (_key, node, path) => {
      const around = isAlias(node) ? named.get(node.source) : undefined;
      if (isAlias(node) && around !== undefined && path.includes(around)) found.push(node);
      if (!isAlias(node) && node.anchor !== undefined) named.set(node.anchor, node);
      return found.length > 0 ? visit.BREAK : undefined;
    },
  });
  const [first] = found;
  if (first === undefined) return;
  const at = first.range?.[0];
  throw new ChairError('CONFIG_INVALID', `${file}${at === undefined ? '' : `, line ${lines.linePos(at).line}`}: this has no end`, {
    expected: 'keys with one value each',
    came: `*${first.source} within what it names`,
  });
}

function unreadable(file: string, expected: string, came: string, cause?: unknown): ChairError {
  return new ChairError('CONFIG_INVALID', `${file} is not readable`, { expected, came, cause });
}
