/** Files in a folder that somebody else may change at any moment: read as root, without being led anywhere, kept waiting, or given more than was expected. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { ChairError } from '../../broker/errors.js';

export class OthersFolder {
  private constructor(
    private readonly path: string,
    private readonly handle: FileHandle,
  ) {}

  /** The folder that has this name now: who puts another one, or a link, in its place later, changes nothing. Throws UPDATE_REFUSED. */
  static async open(path: string): Promise<OthersFolder> {
    return new OthersFolder(path, await opened(path, path, constants.O_DIRECTORY));
  }

  /** Of a plain file in it. Throws UPDATE_REFUSED for a file that is larger, for a link, and for what is no file. */
  async read(name: string, mostBytes: number): Promise<Buffer> {
    const file = `${this.path}/${name}`;
    // Through the folder that is open (proc(5)).
    const handle = await opened(file, `/proc/self/fd/${this.handle.fd}/${name}`);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new ChairError('UPDATE_REFUSED', `${file} is not a file`);
      if (stat.size > mostBytes)
        throw new ChairError('UPDATE_REFUSED', `${file} is too large`, { expected: `at most ${mostBytes} bytes`, came: `${stat.size}` });
      const bytes = Buffer.alloc(stat.size);
      // It may become longer while it is read.
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await handle.read(bytes, done, bytes.length - done, done);
        if (bytesRead === 0) return bytes.subarray(0, done);
        done += bytesRead;
      }
      return bytes;
    } finally {
      await handle.close();
    }
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** Not through a link, and without waiting for somebody to write into a pipe. */
async function opened(file: string, place: string, more = 0): Promise<FileHandle> {
  try {
    return await open(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | more);
  } catch (cause) {
    const came = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new ChairError('UPDATE_REFUSED', `${file} cannot be read`, { expected: 'a file or folder, and no link', came, cause });
  }
}
