/** Lines in files of a bounded size, only ever appended to: `NAME.log`, and before it `NAME.1.log`, `NAME.2.log` ... of which the oldest goes. For the owner alone. */
import { type FileHandle, open, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface LogFilesOptions {
  readonly directory: string;
  readonly name: string;
  readonly fileBytes: number;
  /** Files beside the one that is written. */
  readonly files: number;
  /** What could not be written, each time; undefined: it works. Must not throw. */
  readonly onWritten: (error: unknown) => void;
}

export class LogFiles {
  readonly #o: LogFilesOptions;
  #file: FileHandle | undefined;
  #bytes = 0;
  #writing: Promise<void> = Promise.resolve();

  /** Nothing is opened before the first line. */
  constructor(options: LogFilesOptions) {
    this.#o = options;
  }

  /** `line` ends in a line end and is ASCII. Resolves when it is in the file (`flush`: and on the disk), or could not be written. */
  append(line: string, flush: boolean): Promise<void> {
    this.#writing = this.#writing.then(() => this.#append(line, flush));
    return this.#writing;
  }

  /** The latest `count` of what `parse` finds in lines, oldest first. Lines that a power cut has left half are for `parse` to pass over. */
  async read<T>(count: number, parse: (line: string) => T[]): Promise<T[]> {
    await this.#writing;
    const rows: T[] = [];
    for (let number = 0; number <= this.#o.files && rows.length < count; number++) {
      const text = await readFile(this.#path(number), 'utf8').catch(() => '');
      rows.unshift(
        ...text
          .split('\n')
          .flatMap(parse)
          .slice(rows.length - count),
      );
    }
    return rows;
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }

  #path(number: number): string {
    const { directory, name } = this.#o;
    return join(directory, number === 0 ? `${name}.log` : `${name}.${number}.log`);
  }

  async #append(line: string, flush: boolean): Promise<void> {
    try {
      const file = await this.#opened();
      await file.write(line);
      this.#bytes += line.length;
      if (flush) await file.datasync();
      if (this.#bytes >= this.#o.fileBytes) await this.#rotate();
      this.#o.onWritten(undefined);
    } catch (error) {
      this.#o.onWritten(error);
    }
  }

  async #opened(): Promise<FileHandle> {
    if (this.#file !== undefined) return this.#file;
    const path = this.#path(0);
    const before = await readFile(path, 'utf8').catch(() => '');
    this.#file = await open(path, 'a', 0o600);
    this.#bytes = (await stat(path)).size;
    // A power cut in the middle of a line must not spoil the next one.
    if (before !== '' && !before.endsWith('\n')) await this.#file.write('\n');
    return this.#file;
  }

  async #rotate(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
    for (let number = this.#o.files - 1; number >= 0; number--) {
      await rename(this.#path(number), this.#path(number + 1)).catch(() => undefined);
    }
  }
}
