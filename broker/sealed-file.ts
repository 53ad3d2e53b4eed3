/**
 * A small file whose content must be right or not be there: written whole, flushed and renamed into place, with a seal (sha256 of the content) as its last
 * line. What a power cut, a dying SD card or a hand changed in it is found when it is read, and put aside.
 */
import { createHash, randomBytes } from 'node:crypto';
import { open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, type ErrorCode, toChairError } from './errors.js';

const SEAL = 'sha256 ';

/**
 * Replaces the file by `text` and its seal, which are on the disk when this resolves; until then the former content is. Throws `full` when the disk or a quota is,
 * what the file system says otherwise. `mode`: who may read it, as for chmod.
 */
export async function writeSealed(file: string, text: string, full: ErrorCode, mode?: number): Promise<void> {
  const body = text.endsWith('\n') ? text : `${text}\n`;
  await writeWhole(file, `${body}${SEAL}${sealOf(body)}\n`, { full, ...(mode === undefined ? {} : { mode }) });
}

/** As `writeSealed`, without the seal: for files that others read, too. */
export async function writeWhole(
  file: string,
  text: string,
  { full, mode }: { readonly full: ErrorCode; readonly mode?: number },
): Promise<void> {
  // Of its own for each write: two of one file must not write into each other's.
  const next = `${file}.${randomBytes(4).toString('hex')}.new`;
  try {
    await writeFile(next, text, { flush: true, ...(mode === undefined ? {} : { mode }) });
    await rename(next, file);
    await flushDirectory(path.dirname(file));
  } catch (error) {
    // Of a full disk, half a file may be there: it would keep the disk full.
    await rm(next, { force: true }).catch(() => undefined);
    throw writeError(error, { file, next, full });
  }
}

/** What `writeSealed` was given, with a newline at its end; undefined when there is no such file. Throws STATE_DAMAGED, what the file system says otherwise. */
export async function readSealed(file: string): Promise<string | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw toChairError(error);
  }
  const at = text.lastIndexOf(SEAL);
  const body = text.slice(0, Math.max(0, at));
  if (at >= 0 && text.slice(at) === `${SEAL}${sealOf(body)}\n`) return body;
  throw new ChairError('STATE_DAMAGED', `${file} is damaged`, {
    expected: 'a last line with the sha256 of what stands before it',
    came: at < 0 ? `none in ${text.length} characters` : 'another one',
    todo: 'A disk that fails? It is not used.',
  });
}

/** Renames a file that cannot be used to `<file>.damaged`, for people to look at; the one before of that name goes. Never throws. */
export async function putAside(file: string): Promise<void> {
  await rename(file, `${file}.damaged`).catch(() => undefined);
}

/** What a write leaves when its process is killed or the power goes: the name of the file, then this. */
const LEFTOVER = /\.[0-9a-f]{8}\.new$/;

/** Removes what writes that were cut off left in this folder; nobody may be writing there. Resolves with how many. Never throws. */
export async function removeLeftovers(directory: string): Promise<number> {
  let count = 0;
  for (const name of await readdir(directory).catch(() => [])) {
    if (!LEFTOVER.test(name)) continue;
    await rm(path.join(directory, name), { force: true }).catch(() => undefined);
    count++;
  }
  return count;
}

/** ENOSPC and EDQUOT as `full`; anything else of the file itself: the name of the one beside it is another one each time, and the same trouble again would be news. */
function writeError(
  error: unknown,
  { file, next, full }: { readonly file: string; readonly next: string; readonly full: ErrorCode },
): ChairError {
  const told = toChairError(error);
  if (!isCode(error, 'ENOSPC') && !isCode(error, 'EDQUOT'))
    return new ChairError(told.code, told.message.replaceAll(next, file), { cause: error });
  return new ChairError(full, `disk full while writing ${file}`, { todo: 'Free disk space there.', cause: error });
}

/** Without it a power cut may undo a rename in this folder. File systems that cannot do it are as safe as they are. */
export async function flushDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

function sealOf(body: string): string {
  return createHash('sha256').update(body).digest('hex');
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
