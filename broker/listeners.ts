/** A list of callbacks whose exceptions never reach the caller: one bad listener must not end a socket's event or the process. */
export class Listeners<Args extends readonly unknown[]> {
  readonly #all = new Set<(...args: Args) => void>();

  constructor(private readonly onThrow: (error: unknown) => void = warn) {}

  get size(): number {
    return this.#all.size;
  }

  /** Returns what removes it again. The same function may be added more than once. */
  add(listener: (...args: Args) => void): () => void {
    const own = (...args: Args) => listener(...args);
    this.#all.add(own);
    return () => void this.#all.delete(own);
  }

  emit(...args: Args): void {
    for (const listener of [...this.#all]) {
      try {
        listener(...args);
      } catch (error) {
        this.onThrow(error);
      }
    }
  }
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : new Error(String(error)));
}
