/** Which names the files of a backup may have: those that a gateway keeps, and that can lie beside each other in one folder. */
import { isState } from './snapshot.js';

/** A name that cannot lead out of the folder, on any system, and that an archive can hold. */
export function isSafe(name: string): boolean {
  const parts = name.split('/');
  return name.length <= 150 && parts.every((part) => /^[A-Za-z0-9._@=+ -]{1,90}$/.test(part) && part !== '.' && part !== '..');
}

/** The names of an archive, as they come. */
export class StateNames {
  readonly #files = new Set<string>();
  readonly #folders = new Set<string>();

  /**
   * False for a name that is none, that came before, that is a folder of another, or lies in another as if that were one; and for what is no state, such as the
   * lock of a gateway that runs.
   */
  take(name: string): boolean {
    const parts = name.split('/');
    const folders = parts.slice(1).map((_, i) => parts.slice(0, i + 1).join('/'));
    if (!isSafe(name) || ![name, ...folders].every(isState)) return false;
    if (this.#files.has(name) || this.#folders.has(name) || folders.some((folder) => this.#files.has(folder))) return false;
    this.#files.add(name);
    for (const folder of folders) this.#folders.add(folder);
    return true;
  }
}
