/** A leading `~` in a path that no shell has seen: the home directory of whoever runs this. */
import { homedir } from 'node:os';
import path from 'node:path';

/** `~` and `~/x`. Of somebody else (`~name/x`) nothing is known here: it stays as it is. */
export function withHome(file: string): string {
  return file === '~' || file.startsWith('~/') ? path.join(homedir(), file.slice(1)) : file;
}
