/** Node.js for another machine: a binary, or an archive that holds one, by path or URL; checked against its checksum and against what it says it is. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { ChairError, isChairError, toChairError } from '../../broker/errors.js';
import { PLAIN_FILE, readTar } from '../../broker/tar.js';
import type { Architecture } from './manifest.js';

export interface NodeBinary {
  readonly bytes: Uint8Array;
  /** `v20.19.5`; '' when the binary does not say. */
  readonly version: string;
  /** Text of its licence, when it came with it. */
  readonly licence: Uint8Array | undefined;
}

export interface NodeSource {
  /** A path or an https URL; undefined = the Node that runs this, when it is of that architecture. */
  readonly from?: string;
  /** Of the file as it is given, hex. A URL needs it. */
  readonly sha256?: string;
}

const SHA256 = /^[0-9a-f]{64}$/i;
const MOST_BYTES = 512 * 2 ** 20;
const DOWNLOAD_MS = 600_000;

/** Throws USAGE, FILE_NOT_FOUND, NODE_UNSUITABLE (no Linux binary of Node for this architecture, other bytes than the checksum says). */
export async function readNode(arch: Architecture, { from, sha256 }: NodeSource): Promise<NodeBinary> {
  if (sha256 !== undefined && !SHA256.test(sha256)) {
    throw new ChairError('USAGE', '--node-sha256 is wrong', { expected: '64 hex digits', came: sha256.slice(0, 80) });
  }
  const given = await readSource(arch, from, sha256);
  const what = from ?? process.execPath;
  const { bytes, licence } = await unwrap(given, what);
  checkElf(bytes, arch, what);
  return { bytes, version: versionIn(bytes), licence: licence ?? (await licenceBeside(what)) };
}

async function readSource(arch: Architecture, from: string | undefined, sha256: string | undefined): Promise<Uint8Array> {
  if (from === undefined && (arch !== process.arch || process.platform !== 'linux')) {
    throw new ChairError('USAGE', `a bundle for ${arch} needs Node.js for linux-${arch}`, {
      expected: '--node with a file or URL, and --node-sha256',
      came: 'neither',
      todo: `For instance node-v22.x-linux-${arch}.tar.gz from nodejs.org/dist with its line of SHASUMS256.txt, or the npm package node-linux-${arch}.`,
    });
  }
  const isUrl = from !== undefined && /^[a-z]+:\/\//i.test(from);
  if (isUrl && sha256 === undefined) {
    throw new ChairError('USAGE', `what comes from ${from} cannot be checked`, { expected: '--node-sha256', came: 'none' });
  }
  const bytes = isUrl ? await download(from) : await readLocal(from ?? process.execPath);
  const came = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== undefined && came !== sha256.toLowerCase()) {
    throw new ChairError('NODE_UNSUITABLE', `${from ?? process.execPath} is not what it should be`, {
      expected: `sha256 ${sha256.toLowerCase()}`,
      came: `${came} of ${bytes.length} bytes`,
      todo: 'Fetch it again, or compare the checksum with its source.',
    });
  }
  return bytes;
}

async function readLocal(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (cause) {
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be read`, { todo: 'Give --node the path of a Node binary or archive.', cause });
  }
}

async function download(url: string): Promise<Uint8Array> {
  if (!url.toLowerCase().startsWith('https://')) {
    throw new ChairError('USAGE', 'Node is fetched over https only', { expected: 'https://...', came: url });
  }
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_MS) });
    if (!response.ok || response.body === null) throw new Error(`${response.status} ${response.statusText}`);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MOST_BYTES) throw new Error(`more than ${MOST_BYTES} bytes`);
    }
    return Buffer.concat(chunks);
  } catch (cause) {
    throw new ChairError('FILE_NOT_FOUND', `${url} cannot be fetched`, {
      came: toChairError(cause).message,
      todo: 'Fetch it by other means and give --node its path.',
      cause,
    });
  }
}

/** Of an installed Node: `LICENSE` above its `bin`, where its archive has it. */
async function licenceBeside(file: string): Promise<Uint8Array | undefined> {
  const text = await readFile(path.join(path.dirname(path.dirname(path.resolve(file))), 'LICENSE')).catch(() => undefined);
  return text?.subarray(0, 200).toString('utf8').includes('Node.js') === true ? text : undefined;
}

type Unwrapped = Pick<NodeBinary, 'bytes' | 'licence'>;

/** Out of an archive: the file whose path ends in `bin/node`, and the licence above it. */
async function unwrap(bytes: Uint8Array, what: string): Promise<Unwrapped> {
  if (isElf(bytes)) return { bytes, licence: undefined };
  const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const xz = Buffer.from(bytes.subarray(0, 6)).equals(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]));
  if (!gzip && !xz) throw unsuitable(what, 'a Linux program, or a .tar.gz or .tar.xz that holds bin/node', 'neither');
  const found: { node?: Uint8Array[]; licence?: Uint8Array[] } = {};
  try {
    const archive = gzip ? Readable.from([bytes]).pipe(createGunzip()) : unxz(bytes);
    for await (const { name, type, sizeBytes, content } of readTar(archive, 'BUNDLE_DAMAGED')) {
      const wanted = /(^|\/)bin\/node$/.test(name) ? 'node' : /^[^/]+\/LICENSE$/.test(name) ? 'licence' : undefined;
      if (wanted === undefined || type !== PLAIN_FILE || found[wanted] !== undefined || sizeBytes > MOST_BYTES) continue;
      const chunks: Uint8Array[] = [];
      found[wanted] = chunks;
      for await (const chunk of content) chunks.push(chunk);
    }
  } catch (error) {
    if (isChairError(error, 'NODE_UNSUITABLE')) throw error;
    throw new ChairError('NODE_UNSUITABLE', `${what} cannot be unpacked`, { came: toChairError(error).message, cause: error });
  }
  const { node, licence } = found;
  if (node === undefined) throw unsuitable(what, 'an archive that holds bin/node', 'one that does not');
  return { bytes: Buffer.concat(node), licence: licence === undefined ? undefined : Buffer.concat(licence) };
}

/** Node cannot read .xz: the tool of that name does. */
async function* unxz(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  const child = spawn('xz', ['-dc'], { stdio: ['pipe', 'pipe', 'pipe'] });
  const ended = new Promise<string>((resolve) => {
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    child.once('error', (error) => resolve(`xz cannot be run: ${error.message}`));
    child.once('close', (code) => resolve(code === 0 ? '' : `xz ended with ${code}: ${said.trim()}`));
  });
  // A reader that stops early closes the pipe: that it broke is said by what xz ends with.
  child.stdin.on('error', () => undefined);
  child.stdin.end(bytes);
  for await (const chunk of child.stdout) yield chunk as Uint8Array;
  const failure = await ended;
  if (failure !== '') throw new ChairError('NODE_UNSUITABLE', failure, { todo: 'Install xz-utils, or give the .tar.gz.' });
}

const ELF_MACHINES: Readonly<Record<number, string>> = { 3: '32-bit x86', 40: '32-bit ARM', 62: 'x64', 183: 'arm64', 243: 'RISC-V' };

function isElf(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.subarray(0, 4)).equals(Buffer.from([0x7f, 0x45, 0x4c, 0x46]));
}

/** ELF-64 header: class at 4, byte order at 5, machine at 18. */
function checkElf(bytes: Uint8Array, arch: Architecture, what: string): void {
  if (!isElf(bytes) || bytes.length < 64) throw unsuitable(what, 'a Linux program (ELF)', 'something else');
  const machine = (bytes[18] ?? 0) | ((bytes[19] ?? 0) << 8);
  const came = ELF_MACHINES[machine] ?? `machine ${machine}`;
  if (bytes[4] !== 2 || bytes[5] !== 1 || came !== arch) throw unsuitable(what, `Node for linux-${arch}`, `a program for ${came}`);
}

/** Node's release name is in its text, as `node-v20.19.5.tar.gz` of `process.release`. */
function versionIn(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const marks = ['/node-v', 'node-v'];
  for (const mark of marks) {
    for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) {
      const version = /^v\d+\.\d+\.\d+/.exec(text.toString('latin1', at + mark.length - 1, at + mark.length + 20))?.[0];
      if (version !== undefined) return version;
    }
  }
  return '';
}

function unsuitable(what: string, expected: string, came: string): ChairError {
  return new ChairError('NODE_UNSUITABLE', `${what} is not Node.js for this bundle`, { expected, came });
}
