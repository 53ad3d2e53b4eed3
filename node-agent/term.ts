/** The highest scheduler term this agent has obeyed, kept on disk: a restarted agent must not obey a scheduler that was replaced. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { diskError } from './store.js';

export class TermFile {
  private constructor(
    private readonly file: string,
    private current: number,
  ) {}

  static async open(directory: string): Promise<TermFile> {
    const file = path.join(directory, 'term');
    // Missing: a new store. Unreadable content counts as 0: the file is written by rename, so that is someone's hand.
    const text = await readFile(file, 'utf8').catch(() => '');
    const value = Number(text.trim());
    return new TermFile(file, Number.isSafeInteger(value) && value > 0 ? value : 0);
  }

  get value(): number {
    return this.current;
  }

  /** Raises the term; lower or equal values change nothing. Fenced from this call on, durable when it resolves. */
  raise(term: number): Promise<void> {
    if (term > this.current) {
      this.current = term;
      this.written = this.write(term);
    }
    // Also for an equal term: commands of one term go on in the order they came.
    return this.written;
  }

  private written: Promise<void> = Promise.resolve();

  private async write(term: number): Promise<void> {
    const next = `${this.file}.next.${term}`;
    try {
      await writeFile(next, `${term}\n`, { flush: true });
      await rename(next, this.file);
    } catch (error) {
      throw diskError(error, this.file);
    }
  }
}
