/** What an operator should know and mend, as long as it lasts: shown by `status`, each under a key of its own. */

const MOST = 100;
const CHARACTERS = 500;

export class Problems {
  readonly #texts = new Map<string, string>();

  /** Returns true when this is news: then it is worth a line in the log, too. */
  set(key: string, text: string): boolean {
    const news = this.#texts.get(key) !== text;
    this.#texts.set(key, text);
    return news;
  }

  clear(key: string): void {
    this.#texts.delete(key);
  }

  all(): string[] {
    return [...this.#texts.values()].slice(0, MOST).map((text) => text.slice(0, CHARACTERS));
  }
}
