/** Removes the gateway's files that no deployment needs any more; never while some are being written, as those are not named by a plan yet. */
export class Housekeeping {
  readonly #clean: () => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #writers = 0;
  #wanted = false;
  #cleaning: Promise<void> = Promise.resolve();

  /** `clean` decides what is needed in its first turn, before it awaits anything. */
  constructor(clean: () => Promise<void>, failed: (error: unknown) => void) {
    this.#clean = clean;
    this.#failed = failed;
  }

  /** Nothing is removed while `write` is under way, nor between what it writes and what it does with it. */
  async during<T>(write: () => Promise<T>): Promise<T> {
    this.#writers++;
    await this.#cleaning;
    try {
      return await write();
    } finally {
      this.#writers--;
      this.#next();
    }
  }

  /** Something may be needed no more: clean as soon as nobody writes. */
  request(): void {
    this.#wanted = true;
    this.#next();
  }

  /** Resolves when no cleaning is under way. */
  settled(): Promise<void> {
    return this.#cleaning;
  }

  #next(): void {
    if (this.#writers > 0 || !this.#wanted) return;
    this.#wanted = false;
    this.#cleaning = this.#cleaning.then(this.#clean).catch(this.#failed);
  }
}
