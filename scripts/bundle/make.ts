/** Makes a bundle: everything that an agent's machine needs, in one archive. The same input gives the same bytes. */
import { createHash, randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { createGzip } from 'node:zlib';
import { ChairError, toChairError } from '../../broker/errors.js';
import { TAR_END, tarHeader, tarPadding } from '../../broker/tar.js';
import { compileTo } from '../compile.js';
import { PACKAGE_ROOT, packageVersion, RUNS_FROM_SOURCE } from '../package-root.js';
import { type Architecture, formatManifest, MANIFEST, type ManifestFile, TOP } from './manifest.js';
import { type NodeBinary, type NodeSource, readNode } from './node-binary.js';
import { programFiles } from './program.js';
import { type Bundle, readBundle } from './read.js';

export interface BundleOptions {
  readonly arch: Architecture;
  readonly node: NodeSource;
  /** The archive; replaced when it is there. */
  readonly out: string;
  /** The compiled program; default: this one, in a checkout compiled for it. */
  readonly dist?: string;
  readonly onStep?: (step: string) => void;
}

/** A file of the bundle, in memory. */
interface Packed {
  /** With `/`, from the archive's top. */
  readonly path: string;
  readonly mode: number;
  readonly bytes: Uint8Array;
}

/** Of a bundle for x64 (156 MB), 9 makes 56.5 MB in 9.6 s of computing, 6 makes 56.7 MB in 4.7 s: on a small gateway, half the wait for 0.4 % more. */
const GZIP_LEVEL = 6;

/** What a bundle brings for the device itself; `+x` for what is run. */
const DEVICE_FILES = [
  { path: 'install.sh', executable: true },
  { path: 'start.sh', executable: true },
  { path: 'launch', executable: true },
  { path: 'bin/musical-chair', executable: true },
  { path: 'musical-chair-agent.service', executable: false },
] as const;

const DEVICE_FOLDER = fileURLToPath(new URL('./device/', import.meta.url));

/** Throws USAGE, FILE_NOT_FOUND, NODE_UNSUITABLE, BUNDLE_FAILED. What was written is read back and checked before it gets its name. */
export async function makeBundle(options: BundleOptions): Promise<Bundle & { readonly unpackedBytes: number }> {
  const { arch, out, onStep = () => undefined } = options;
  onStep('reading Node.js');
  const node = await readNode(arch, options.node);
  const scratch = await mkdtemp(path.join(tmpdir(), 'mc-bundle-'));
  try {
    if (options.dist === undefined && RUNS_FROM_SOURCE) onStep('compiling');
    const dist = options.dist ?? compiled(scratch);
    onStep('collecting');
    const entries = await collect(dist, arch, node);
    const manifest = { version: packageVersion(), arch, node: node.version, files: entries.map(listed) };
    const head = { path: `${TOP}/${MANIFEST}`, mode: 0o644, bytes: Buffer.from(formatManifest(manifest)) };
    onStep('packing');
    await write([head, ...entries], out, arch);
    const bundle = await readBundle(out, { arch });
    return { ...bundle, unpackedBytes: entries.reduce((sum, { bytes }) => sum + bytes.length, 0) };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function compiled(scratch: string): string {
  if (!RUNS_FROM_SOURCE) return path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
  const dist = path.join(scratch, 'dist');
  compileTo(dist);
  return dist;
}

/** In the order of their paths, as they are listed: the archive does not depend on the order in which a disk gives names. */
async function collect(dist: string, arch: Architecture, node: NodeBinary): Promise<Packed[]> {
  const entries: Packed[] = [{ path: `${TOP}/bin/node`, mode: 0o755, bytes: node.bytes }];
  const add = (name: string, bytes: Uint8Array, executable = false): void => {
    entries.push({ path: `${TOP}/${name}`, mode: executable ? 0o755 : 0o644, bytes });
  };
  for (const { path: name, executable } of DEVICE_FILES) {
    add(name, await readFile(path.join(DEVICE_FOLDER, path.basename(name))), executable);
  }
  if (node.licence !== undefined) add('bin/LICENSE', node.licence);
  add('LICENSE', await readFile(path.join(PACKAGE_ROOT, 'LICENSE')));
  add('app/package.json', Buffer.from(`${JSON.stringify({ name: 'musical-chair', version: packageVersion(), type: 'module' })}\n`));
  for (const { path: name, file } of programFiles({ dist, root: PACKAGE_ROOT, arch })) add(`app/${name}`, await readFile(file));
  return entries.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function listed({ path: full, mode, bytes }: Packed): ManifestFile {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { path: full.slice(TOP.length + 1), sha256, sizeBytes: bytes.length, executable: (mode & 0o111) !== 0 };
}

/** Beside its name first: a bundle that has its name is whole. */
async function write(entries: readonly Packed[], out: string, arch: Architecture): Promise<void> {
  const part = `${out}.${randomBytes(4).toString('hex')}.new`;
  try {
    await pipeline(
      Readable.from(archive(entries), { objectMode: true }),
      createGzip({ level: GZIP_LEVEL }),
      unsystem,
      createWriteStream(part, { flush: true }),
    );
    await readBundle(part, { arch });
    await rename(part, out);
  } catch (error) {
    await rm(part, { force: true });
    if (error instanceof ChairError) throw error;
    throw new ChairError('BUNDLE_FAILED', `${out} cannot be written`, { came: toChairError(error).message, cause: error });
  }
}

/** Without times and owners. */
function* archive(files: Iterable<Packed>): Generator<Uint8Array> {
  for (const { path: name, mode, bytes } of files) {
    yield tarHeader({ name, mode, sizeBytes: bytes.length, modifiedS: 0 }, 'BUNDLE_FAILED');
    yield bytes;
    yield tarPadding(bytes.length);
  }
  yield TAR_END;
}

/** Byte 9 of a gzip header (RFC 1952) names the system that made it: "unknown", whichever it was. */
async function* unsystem(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let at = 0;
  for await (const chunk of chunks) {
    const place = 9 - at;
    at += chunk.length;
    if (place < 0 || place >= chunk.length) {
      yield chunk;
      continue;
    }
    const changed = Uint8Array.from(chunk);
    changed[place] = 0xff;
    yield changed;
  }
}
