/** Where the join tokens of cards come from: the gateway, or a file when it cannot be reached from here. */
import { readFileSync } from 'node:fs';
import { ChairError } from '../../broker/errors.js';
import type { OptionValues } from '../command.js';
import type { Invitation } from './flash.js';

/** Who gives the cards their tokens; undefined for a cluster without trust. Throws USAGE, FILE_NOT_FOUND. */
export async function inviter(
  options: OptionValues,
  names: readonly string[],
): Promise<((name: string) => Promise<Invitation>) | undefined> {
  if (options.insecure === true) return undefined;
  if (typeof options.tokenFile === 'string') return readTokens(options.tokenFile, names);
  throw new ChairError('USAGE', '--token-file is missing', { expected: 'join tokens, as `mc token create` prints them' });
}

/** One token for one card; or lines `NAME TOKEN`. Throws FILE_NOT_FOUND, USAGE. */
export function readTokens(file: string, names: readonly string[]): (name: string) => Promise<Invitation> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be read`, { expected: 'a file with join tokens', cause });
  }
  const tokens = parseTokens(text, names);
  const lacking = names.find((name) => !tokens.has(name));
  if (lacking !== undefined)
    throw new ChairError('USAGE', `${file} has no token for ${lacking}`, {
      expected: 'a line "NAME TOKEN" for each card, or the token alone for one card',
    });
  return async (name) => ({ token: tokens.get(name) ?? '' });
}

export function parseTokens(text: string, names: readonly string[]): Map<string, string> {
  const lines = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  const [first = '', ...others] = lines;
  const [only] = names;
  if (names.length === 1 && only !== undefined && others.length === 0 && !/\s/.test(first) && first !== '') return new Map([[only, first]]);
  return new Map(
    lines.map((line, i) => {
      const [name = '', token, rest] = line.split(/\s+/);
      if (token === undefined || rest !== undefined)
        throw new ChairError('USAGE', 'the token file is wrong', {
          expected: 'lines of a name and a token',
          came: `another line ${i + 1}`,
        });
      return [name, token];
    }),
  );
}
