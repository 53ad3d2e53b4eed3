/**
 * A bundle's list of contents: one line a file, readable by `sh` and `sha256sum` on a device that has nothing else yet, with a seal as its last line. The
 * seal names the bundle: two builds of one version that differ in a byte have different names.
 */
import { createHash } from 'node:crypto';
import { ChairError } from '../../broker/errors.js';

/** The one folder in the archive. */
export const TOP = 'musical-chair';
export const MANIFEST = 'MANIFEST';
const FORMAT = 'musical-chair-bundle 1';
const VERSION = /^[0-9A-Za-z.+-]{1,64}$/;
/** No spaces: the device reads the lines with `awk`. No `.` or `..` level. */
const PATH = /^(?!\/)(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9@._+/-]{1,240}$/;
const SHA256 = /^[0-9a-f]{64}$/;

export const ARCHITECTURES = ['arm64', 'x64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

export interface ManifestFile {
  /** Below `musical-chair/`. */
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly executable: boolean;
}

export interface Manifest {
  readonly version: string;
  readonly arch: Architecture;
  /** `v20.19.5`; '' when it could not be found in the binary. */
  readonly node: string;
  readonly files: readonly ManifestFile[];
}

export function isArchitecture(text: string): text is Architecture {
  return (ARCHITECTURES as readonly string[]).includes(text);
}

/** Text with its seal. Throws BUNDLE_FAILED for what it cannot say. */
export function formatManifest({ version, arch, node, files }: Manifest): string {
  if (!VERSION.test(version)) throw new ChairError('BUNDLE_FAILED', `the version "${version}" cannot stand in a bundle`);
  const bad = files.find(({ path }) => !PATH.test(path) || path === MANIFEST);
  if (bad !== undefined) throw new ChairError('BUNDLE_FAILED', `a file cannot be called ${JSON.stringify(bad.path)} in a bundle`);
  const lines = [FORMAT, `version ${version}`, `arch ${arch}`, `node ${node === '' ? 'unknown' : node}`];
  for (const { path, sha256, sizeBytes, executable } of files)
    lines.push(`file ${sha256} ${executable ? '755' : '644'} ${sizeBytes} ${path}`);
  const body = `${lines.join('\n')}\n`;
  return `${body}seal ${sealOf(body)}\n`;
}

/** The manifest and its seal. Throws BUNDLE_DAMAGED when the seal is not that of the text, or the text is no manifest. */
export function parseManifest(text: string): { readonly manifest: Manifest; readonly seal: string } {
  const at = text.lastIndexOf('seal ');
  const body = text.slice(0, Math.max(0, at));
  const seal = text.slice(at + 5).trimEnd();
  if (at < 0 || text !== `${body}seal ${sealOf(body)}\n`) throw damaged('a last line with the sha256 of what stands above', 'another one');
  const [format, version, arch, node, ...files] = body.trimEnd().split('\n');
  if (format !== FORMAT) {
    throw new ChairError('BUNDLE_DAMAGED', 'this is no bundle that this version knows', {
      expected: FORMAT,
      came: (format ?? '').slice(0, 80),
    });
  }
  const versionText = wordOf(version, 'version');
  const archText = wordOf(arch, 'arch');
  if (!VERSION.test(versionText) || !isArchitecture(archText)) throw damaged('a version and an architecture', `${version}, ${arch}`);
  const nodeText = wordOf(node, 'node');
  const list = files.map(parseFile);
  if (new Set(list.map(({ path }) => path)).size !== list.length) throw damaged('each file once', 'one twice');
  return { manifest: { version: versionText, arch: archText, node: nodeText === 'unknown' ? '' : nodeText, files: list }, seal };
}

/** What the bundle is called on a device: a folder's name. */
export function bundleName(version: string, seal: string): string {
  return `${version}-${seal.slice(0, 16)}`;
}

export const BUNDLE_NAME = /^[0-9A-Za-z.+-]{1,64}-[0-9a-f]{16}$/;

function wordOf(line: string | undefined, key: string): string {
  const [first, second, ...more] = (line ?? '').split(' ');
  if (first !== key || second === undefined || more.length > 0) throw damaged(`a line "${key} ..."`, (line ?? 'nothing').slice(0, 80));
  return second;
}

function parseFile(line: string): ManifestFile {
  const [key, sha256 = '', mode = '', size = '', path = '', ...more] = line.split(' ');
  const sizeBytes = Number(size);
  const right =
    key === 'file' &&
    SHA256.test(sha256) &&
    (mode === '755' || mode === '644') &&
    /^\d{1,12}$/.test(size) &&
    PATH.test(path) &&
    path !== MANIFEST &&
    more.length === 0;
  if (!right) throw damaged('a line "file <sha256> <mode> <size> <path>"', line.slice(0, 120));
  return { path, sha256, sizeBytes, executable: mode === '755' };
}

function sealOf(body: string): string {
  return createHash('sha256').update(body).digest('hex');
}

function damaged(expected: string, came: string): ChairError {
  return new ChairError('BUNDLE_DAMAGED', 'the list of contents of the bundle is damaged', {
    expected,
    came,
    todo: 'Make or copy it anew.',
  });
}
