/** Where the join tokens of cards come from: the gateway, or a file when it cannot be reached from here. */
import { readFileSync } from 'node:fs';
import { parseToken } from '../../broker/credentials/token-text.js';
import { ChairError } from '../../broker/errors.js';
import type { Settings } from '../config.js';
import { parseDuration } from '../duration.js';
import type { Invitation } from './flash.js';

/** Flags that say where the tokens come from. */
export interface TokenFlags {
  readonly tokenFile?: string;
  readonly ttl: string;
  readonly hold: boolean;
  readonly replace: boolean;
}

type Invite = (name: string) => Promise<Invitation>;

/**
 * Who gives the cards their tokens; undefined for a cluster without trust. The gateway is asked at once whether it is there and may be asked, and
 * whether any of these names has joined already: not after the images were unpacked, and not for the last card of six.
 * Throws USAGE, FILE_NOT_FOUND, IDENTITY_TAKEN, and what a connection to the gateway can throw.
 */
export async function inviter(flags: TokenFlags, settings: Settings, names: readonly string[]): Promise<Invite | undefined> {
  refuseIdle(flags, settings.insecure);
  if (settings.insecure) return undefined;
  if (flags.tokenFile !== undefined) return readTokens(flags.tokenFile, names, settings.cluster);
  const ttlMs = parseDuration(flags.ttl, '--ttl');
  const { withClient } = await import('../connection.js');
  await withClient(settings, async (client) => {
    const { members } = await client.trust({ action: 'members' });
    const joined = flags.replace ? [] : members.filter((member) => member.state === 'valid' && names.includes(member.name));
    if (joined.length > 0)
      throw new ChairError('IDENTITY_TAKEN', 'agents of these names have joined already', {
        expected: 'names that nobody has',
        came: joined.map((member) => member.name).join(', '),
        todo: 'If these machines are set up anew: --replace. The certificates of before end when the new cards join.',
      });
  });
  const { hold, replace } = flags;
  return (name) =>
    withClient(settings, async (client) => {
      const request = { action: 'invite', name, role: 'agent', ttlMs, hold, replace } as const;
      const { token, tokens, enrolmentPort } = await client.trust(request);
      return { token, enrolmentPort, ...(tokens[0] === undefined ? {} : { expiresMs: tokens[0].expiresMs }) };
    });
}

/** Flags that would change nothing. */
function refuseIdle({ tokenFile, hold, replace }: TokenFlags, insecure: boolean): void {
  const without = insecure ? '--insecure' : '--token-file';
  const given = { '--hold': hold, '--replace': replace, '--token-file': insecure && tokenFile !== undefined };
  const idle = Object.entries(given).find(([, is]) => is)?.[0];
  if (idle === undefined || (!insecure && tokenFile === undefined)) return;
  throw new ChairError('USAGE', `${idle} and ${without} contradict each other`, { expected: 'one of them', came: 'both' });
}

/** One token for one card; or lines `NAME TOKEN`. Each says itself for whom it is. Throws FILE_NOT_FOUND, USAGE. */
export function readTokens(file: string, names: readonly string[], cluster: string): Invite {
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
  for (const name of names) {
    const token = parseToken(tokens.get(name) ?? '');
    if (token.name !== name || token.cluster !== cluster || token.role !== 'agent')
      throw new ChairError('USAGE', `the token for ${name} in ${file} is for somebody else`, {
        expected: `the agent ${name} of the cluster ${cluster}`,
        came: `the ${token.role} ${token.name} of the cluster ${token.cluster}`,
      });
  }
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
