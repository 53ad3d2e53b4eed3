/**
 * The import arrows of docs/architecture.md as a check: who may import whom, and where a third-party package may enter.
 * Reads the sources as text: a scanner that knows comments, strings and template literals, so it needs no compiler.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

export interface SourceFile {
  /** Relative to the root, with `/`. */
  readonly path: string;
  readonly text: string;
}

export interface Violation {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

/** Leaf files of broker/ that models/ may use: they import nothing else of ours but each other. */
const LEAVES = new Set(['broker/errors.ts', 'broker/tensor.ts', 'broker/plan.ts', 'broker/parity.ts', 'broker/buffers.ts']);

/** Folder -> which of our files it may import beside its own. */
const ARROWS: Readonly<Record<string, (target: string) => boolean>> = {
  models: (target) => LEAVES.has(target),
  broker: () => false,
  'node-agent': (target) => target.startsWith('broker/') || target.startsWith('models/engine/'),
  scheduler: (target) => target.startsWith('broker/') || target.startsWith('models/'),
  scripts: () => true,
};

/** What the arrows say, for the message. */
const MAY: Readonly<Record<string, string>> = {
  models: `only ${[...LEAVES].join(', ')}`,
  broker: 'nothing else of ours',
  'node-agent': 'only broker/ and models/engine/',
  scheduler: 'only models/ and broker/',
  scripts: 'everything',
};

/** Third-party package -> files it may enter in. Tests may use it where the file itself is tested. */
const ENTRANCES: Readonly<Record<string, RegExp>> = {
  mqtt: /^broker\/mqtt-bus\.ts$/,
  aedes: /^broker\/server\.ts$/,
  '@peculiar/x509': /^broker\/credentials\//,
  'reflect-metadata': /^broker\/credentials\//,
  'mqtt-packet': /^broker\/(lanes\/|server\.ts$|guard[^/]*\.ts$)/,
  avsc: /^broker\//,
  'onnxruntime-node': /^models\/engine\//,
  'onnxruntime-common': /^models\/engine\//,
  'onnx-buf': /^models\//,
  '@bufbuild/protobuf': /^models\//,
  zod: /(^scripts\/|(^|\/)config\.ts$|^scheduler\/(plan-file|schema-issue|devices\/device-file)\.ts$)/,
  commander: /^scripts\//,
  sharp: /^scripts\//,
  yaml: /^(scripts\/|scheduler\/(plan-file|read-yaml)\.ts$)/,
  'opentype.js': /^scripts\//,
  'js-fatfs': /^scripts\/flash\/fat\.ts$/,
  'xz-decompress': /^scripts\/flash\/xz\.ts$/,
  tsx: /^scripts\//,
  '@observablehq/plot': /^scripts\/plot\.ts$/,
  linkedom: /^scripts\/plot\.ts$/,
};
/** Packages for tests and configuration only. */
const TEST_ONLY = new Set(['vitest', 'fast-check', 'esbuild']);
/** A test stands beside the code it tests; some build the other end of the protocol by hand to see how the code takes it. */
const TEST_ENTRANCES: Readonly<Record<string, RegExp>> = {
  mqtt: /^(broker|scripts)\//,
  aedes: /^broker\//,
  'mqtt-packet': /^(broker|node-agent)\//,
};

/** Tests, and what only tests use: neither is in the built package, so nothing else may import it. tsconfig.build.json leaves out the same files. */
const TEST_FILE =
  /\.test\.ts$|(^|\/)(test-[^/]+|fixture|random-graph|scripted-agent|chain-model)\.ts$|^scripts\/(e2e\/|bench\/|chaos\/|verify-|testdata)/;

const FORBIDDEN_NAMES = /(^|\/)(utils?|common|shared|helpers?)(\/|\.[a-z]+$)/;

/** What stands before the string that names a module. */
const BEFORE_MODULE = /(?:\bfrom|\bimport|\bimport\s*\(|\brequire\s*\(|\bresolve\s*\()\s*$/;

/**
 * Blanks comments, template literals and every string that does not name a module; keeps line breaks. So patterns see code only.
 * A regular expression literal holding quotes could confuse it; none of ours does, and the effect would be a false report, not a miss.
 */
export function blankProse(text: string): string {
  let out = '';
  let i = 0;
  const blank = (end: number): void => {
    for (; i < end; i++) out += text[i] === '\n' ? '\n' : ' ';
  };
  while (i < text.length) {
    const two = text.slice(i, i + 2);
    const ch = text[i] ?? '';
    if (two === '//') blank(endOr(text.indexOf('\n', i), text.length));
    else if (two === '/*') blank(endOr(text.indexOf('*/', i + 2), text.length - 2) + 2);
    else if (ch === '"' || ch === "'") {
      const end = stringEnd(text, i, ch);
      if (BEFORE_MODULE.test(out.slice(-40))) {
        out += text.slice(i, end);
        i = end;
      } else blank(end);
    } else if (ch === '`') blank(stringEnd(text, i, ch));
    else {
      out += ch;
      i++;
    }
  }
  return out;
}

function endOr(index: number, fallback: number): number {
  return index < 0 ? fallback : index;
}

function stringEnd(text: string, start: number, quote: string): number {
  for (let i = start + 1; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (text[i] === quote) return i + 1;
    // A quote in prose or in a regular expression: a plain string never spans lines.
    else if (text[i] === '\n' && quote !== '`') return start + 1;
  }
  return text.length;
}

const IMPORT = /(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+|\brequire\s*\(\s*|\bimport\.meta\.resolve\s*\(\s*)(['"])([^'"\n]+)\1/g;

/** Every module a source names, with the line. */
export function importsOf(text: string): { readonly specifier: string; readonly line: number }[] {
  const code = blankProse(text);
  return [...code.matchAll(IMPORT)].map((m) => ({ specifier: m[2] ?? '', line: code.slice(0, m.index).split('\n').length }));
}

/** `@scope/name/sub` -> `@scope/name` */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function checkOwn(file: string, specifier: string): string | undefined {
  const target = path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier)).replace(/\.js$/, '.ts');
  if (!/\.(js|mjs|json)$/.test(specifier)) return `import of ${specifier} must end in .js`;
  const from = file.split('/')[0] ?? '';
  const to = target.split('/')[0] ?? '';
  const arrow = ARROWS[from];
  if (TEST_FILE.test(target) && !TEST_FILE.test(file)) return `${target} is for tests only`;
  if (from === to || arrow === undefined || arrow(target)) return undefined;
  return `${from}/ may import ${MAY[from]}; got ${target}`;
}

function checkPackage(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('node:')) return undefined;
  const name = packageOf(specifier);
  const isTest = TEST_FILE.test(file);
  if (TEST_ONLY.has(name)) return isTest || file.endsWith('.config.ts') ? undefined : `${name} is for tests only`;
  const entrance = ENTRANCES[name];
  if (entrance === undefined)
    return `the package ${name} has no entrance: add it to ENTRANCES in scripts/check-arrows.ts and to docs/dependencies.md`;
  if (entrance.test(file) || (isTest && TEST_ENTRANCES[name]?.test(file) === true)) return undefined;
  return `the package ${name} may enter only in ${entrance.source}`;
}

/** Every broken arrow in the given sources. */
export function checkArrows(files: readonly SourceFile[]): Violation[] {
  const violations: Violation[] = [];
  for (const { path: file, text } of files) {
    if (FORBIDDEN_NAMES.test(file))
      violations.push({
        file,
        line: 1,
        message: 'a folder or file named utils, common, shared or helpers says nothing; name it after what it does',
      });
    for (const { specifier, line } of importsOf(text)) {
      const message = specifier.startsWith('.') ? checkOwn(file, specifier) : checkPackage(file, specifier);
      if (message !== undefined) violations.push({ file, line, message });
    }
  }
  return violations;
}

/** Every TypeScript source below the five folders. */
export function readSources(root: string): SourceFile[] {
  const files: SourceFile[] = [];
  for (const folder of Object.keys(ARROWS)) {
    for (const entry of readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !/\.ts$/.test(entry.name)) continue;
      const full = path.join(entry.parentPath, entry.name);
      files.push({ path: path.relative(root, full).split(path.sep).join('/'), text: readFileSync(full, 'utf8') });
    }
  }
  return files;
}
