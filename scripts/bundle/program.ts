/**
 * What of the compiled program, and of the packages, an agent's machine needs: the files that its entry reaches, the packages those import, and of each package
 * what runs on that machine. Read from the files themselves, so that a new import is in the next bundle without a list to keep.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { Architecture } from './manifest.js';

/** What runs on the device; the rest follows from it. */
export const ENTRY = 'scripts/device.js';
/** Read at run time without being imported. */
const READ = ['broker/schema'];
/** The command line's shared files reach into what only a gateway or an operator does: never on an agent's machine. */
const NEVER = /^(scheduler\/|scripts\/(bench|chaos|testbed|e2e|demo|dashboard|flash)\/|broker\/server\.js)/;
/** Dependencies that a package's own scripts use at installation, not what is installed. */
const NOT_AT_RUN_TIME: Readonly<Record<string, readonly string[]>> = {
  'onnxruntime-node': ['adm-zip', 'global-agent'],
  mqtt: ['commist', 'help-me', 'concat-stream'],
};
/** Of packages: types, maps, sources, prose, tests. Licences stay. */
const LICENCE = /^(licen[cs]e|notice|copying)/i;
const JUNK_FILE =
  /(\.d\.[cm]?ts|\.[cm]?ts|\.tsx|\.map|\.md|\.markdown|\.tsbuildinfo|\.flow|\.yml|\.yaml|\.html|\.gyp|\.lock)$|^\.|^(package-lock\.json|Makefile|tsconfig[^/]*\.json)$/i;
/** At the top of a package only: deeper, such a name may be code. */
const JUNK_FOLDER = new Set([
  'test',
  'tests',
  '__tests__',
  'doc',
  'docs',
  'example',
  'examples',
  'benchmark',
  'benchmarks',
  '.github',
  'man',
]);
/** Of single packages: folders that the program never loads. */
const UNUSED: Readonly<Record<string, RegExp>> = {
  // Builds for browsers, and the command line tools.
  mqtt: /^(dist|help|build\/bin)\//,
  'onnxruntime-node': /^(script|lib)\//,
  'onnxruntime-common': /^lib\//,
  zod: /^src\//,
};

export interface PlacedFile {
  /** Below `app/` in the bundle. */
  readonly path: string;
  readonly file: string;
}

export interface Program {
  /** The compiled program. */
  readonly dist: string;
  /** The folder with our package.json: packages are looked for from there, as Node does. */
  readonly root: string;
  readonly arch: Architecture;
}

/** Relative to `app/`: compiled files below `dist/`, packages below `node_modules/`. Throws BUNDLE_FAILED naming what is missing. */
export function programFiles({ dist, root, arch }: Program): PlacedFile[] {
  const { files, packages } = reach(dist);
  const ours = Object.keys(readPackage(root).dependencies ?? {});
  const placed = files.map((name) => ({ path: `dist/${name}`, file: path.join(dist, name) }));
  // What else stands in quotes after "from" is prose.
  return [
    ...placed,
    ...packageFiles(
      packages.filter((name) => ours.includes(name)),
      root,
      arch,
    ),
  ];
}

/** From the entry along every relative name in a string, and the packages that are named on the way. */
export function reach(dist: string): { readonly files: readonly string[]; readonly packages: readonly string[] } {
  const files = new Set<string>();
  const packages = new Set<string>();
  const waiting = [ENTRY, ...READ.flatMap((folder) => dataFiles(dist, folder))];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (files.has(name)) continue;
    if (!existsSync(path.join(dist, name))) {
      throw new ChairError('BUNDLE_FAILED', `${name} is not in the compiled program ${dist}`, { todo: 'Build it anew: npm run build' });
    }
    files.add(name);
    if (!/\.m?js$/.test(name)) continue;
    const text = readFileSync(path.join(dist, name), 'utf8');
    for (const found of relativeNames(text)) {
      const target = path.posix.join(path.posix.dirname(name), found);
      if (NEVER.test(target) && isNeeded(text, found)) {
        throw new ChairError('BUNDLE_FAILED', `${name} imports ${target}, which does not go onto a device`, {
          todo: 'Import it where it is used: await import(...)',
        });
      }
      if (!NEVER.test(target) && existsSync(path.join(dist, target)) && statSync(path.join(dist, target)).isFile()) waiting.push(target);
    }
    for (const found of packageNames(text)) packages.add(found);
  }
  return { files: [...files].sort(), packages: [...packages].sort() };
}

function dataFiles(dist: string, folder: string): string[] {
  return readdirSync(path.join(dist, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(avsc|json)$/.test(entry.name))
    .map((entry) => path.relative(dist, path.join(entry.parentPath, entry.name)).split(path.sep).join('/'));
}

/** Imports, and also workers, child processes and files beside the code: all are named by a path in a string. */
function relativeNames(text: string): string[] {
  return [...text.matchAll(/['"](\.{1,2}\/[\w./-]+\.(?:m?js|json))['"]/g)].map((match) => match[1] ?? '');
}

/** Imported in any case, not only by a command that is never given here. */
function isNeeded(text: string, found: string): boolean {
  return (
    text.includes(`from '${found}'`) ||
    text.includes(`from "${found}"`) ||
    text.includes(`import '${found}'`) ||
    text.includes(`import "${found}"`)
  );
}

function packageNames(text: string): string[] {
  const found = text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*|\(import\.meta\.url\)\()['"]([@a-z][\w@./-]*)['"]/g);
  return [...found].map((match) => packageOf(match[1] ?? '')).filter((name) => name !== '' && !name.startsWith('node:'));
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

interface PackageJson {
  readonly dependencies?: Readonly<Record<string, string>>;
}

function readPackage(folder: string): PackageJson {
  return JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as PackageJson;
}

/** The packages with all they depend on, as npm has laid them out (a nested one stays nested). */
function packageFiles(names: readonly string[], root: string, arch: Architecture): PlacedFile[] {
  const placed: PlacedFile[] = [];
  const seen = new Set<string>();
  const waiting = names.map((name) => ({ name, from: root }));
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const folder = findPackage(next.name, next.from);
    if (seen.has(folder)) continue;
    seen.add(folder);
    const below = placeOf(folder, root);
    for (const name of kept(next.name, folder, arch)) placed.push({ path: `${below}/${name}`, file: path.join(folder, name) });
    const skipped = NOT_AT_RUN_TIME[next.name] ?? [];
    for (const name of Object.keys(readPackage(folder).dependencies ?? {})) {
      if (!skipped.includes(name) && !name.startsWith('@types/')) waiting.push({ name, from: folder });
    }
  }
  return placed;
}

/** As Node looks for it: in the nearest `node_modules` upwards. */
function findPackage(name: string, from: string): string {
  for (let folder = from; ; folder = path.dirname(folder)) {
    const found = path.join(folder, 'node_modules', name);
    if (existsSync(path.join(found, 'package.json'))) return found;
    if (folder === path.dirname(folder)) break;
  }
  throw new ChairError('BUNDLE_FAILED', `the package ${name}, needed by ${from}, is not installed`, {
    todo: 'Install the packages: npm ci',
  });
}

/**
 * Where a package goes in `app/`. In a checkout the packages are in our own `node_modules`. Installed by npm, we are in one ourselves, and what is in ours is a
 * version of our own: it stays nearer to our code than that of the others.
 */
function placeOf(folder: string, root: string): string {
  const own = path.join(root, 'node_modules') + path.sep;
  const installed = root.lastIndexOf(`${path.sep}node_modules${path.sep}`);
  if (folder.startsWith(own)) return `${installed < 0 ? '' : 'dist/'}node_modules/${slashed(folder.slice(own.length))}`;
  const around = `${root.slice(0, installed)}${path.sep}node_modules${path.sep}`;
  if (installed >= 0 && folder.startsWith(around)) return `node_modules/${slashed(folder.slice(around.length))}`;
  throw new ChairError('BUNDLE_FAILED', `the package in ${folder} is outside of ${root}`, { todo: 'Install the packages: npm ci' });
}

function slashed(name: string): string {
  return name.split(path.sep).join('/');
}

function kept(name: string, folder: string, arch: Architecture): string[] {
  const out: string[] = [];
  const walk = (below: string): void => {
    for (const entry of readdirSync(path.join(folder, below), { withFileTypes: true })) {
      const full = below === '' ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) {
        // Nested packages are found by whoever depends on them.
        if (entry.name !== 'node_modules' && !JUNK_FOLDER.has(full) && !isForeign(full, arch)) walk(full);
      } else if (entry.isFile() && isKept(name, full, entry.name)) out.push(full);
    }
  };
  walk('');
  return out;
}

function isKept(name: string, full: string, base: string): boolean {
  if (LICENCE.test(base)) return true;
  return !JUNK_FILE.test(base) && UNUSED[name]?.test(full) !== true;
}

/** Of native libraries, which stand in folders `<platform>/<arch>`: those of other machines. */
function isForeign(folder: string, arch: Architecture): boolean {
  const [platform, machine] = folder.split('/').slice(-2);
  if (['darwin', 'win32', 'freebsd', 'android'].includes(folder.split('/').at(-1) ?? '')) return true;
  return platform === 'linux' && machine !== undefined && machine !== arch && /^(x64|arm64|arm|ia32|riscv64|ppc64|s390x)$/.test(machine);
}
