/** What `simulate` takes: how frames come, and what happens to agents. Read with coded errors. */
import { ChairError } from '../broker/errors.js';
import { NAME_PATTERN } from '../broker/topics.js';
import type { Incident, Load } from '../scheduler/simulate/options.js';
import type { CommandOption, OptionValues } from './command.js';
import { optionList, optionText } from './deploy-options.js';

export const SIMULATE_OPTIONS: readonly CommandOption[] = [
  {
    flags: '--rate <fps>',
    description: 'frames come at this rate, whether answers do or not; default: the next one comes with each answer',
  },
  { flags: '--poisson <fps>', description: 'frames come at random, so many per second on average' },
  { flags: '--frames <count>', description: 'frames in all', default: '400' },
  {
    flags: '--fail <agent@seconds>',
    description: 'the process of this agent ends then, and its connections with it; may be repeated',
    repeatable: true,
  },
  { flags: '--vanish <agent@seconds>', description: 'the device falls silent then, as without power; may be repeated', repeatable: true },
  { flags: '--return <agent@seconds>', description: 'it is back then; may be repeated', repeatable: true },
  {
    flags: '--slow <agent@seconds:factor>',
    description: 'from then on it computes at this part of its speed, as in pi-2@30:0.5; may be repeated',
    repeatable: true,
  },
  { flags: '--slow-link <agent@seconds:factor>', description: 'the same of its link; may be repeated', repeatable: true },
  { flags: '--noise <sigma>', description: 'spread of run times: standard deviation of their logarithm', default: '0' },
  { flags: '--seed <number>', description: 'of noise and of random arrivals', default: '1' },
  { flags: '--fair-links', description: 'messages share a link evenly instead of following each other' },
  { flags: '--timeline <file>', description: 'write the first frames as a drawing (SVG)' },
];

const KINDS = { fail: 'crash', vanish: 'vanish', return: 'return', slow: 'speed', slowLink: 'link' } as const;

/** In order of time. Throws USAGE. */
export function parseIncidents(options: OptionValues): Incident[] {
  const incidents = Object.entries(KINDS).flatMap(([option, kind]) =>
    optionList(options, option).map((text) => incident(option, kind, text)),
  );
  return incidents.sort((a, b) => a.atMs - b.atMs);
}

function incident(option: string, kind: Incident['kind'], text: string): Incident {
  const withFactor = kind === 'speed' || kind === 'link';
  const match = /^([^@]+)@(\d+(?:\.\d+)?)s?(?::(\d+(?:\.\d+)?))?$/.exec(text);
  const [, agent = '', seconds, factor] = match ?? [];
  const atMs = 1000 * Number(seconds);
  const flag = `--${option.replace('L', '-l')}`;
  if (match === null || !NAME_PATTERN.test(agent) || withFactor !== (factor !== undefined)) {
    const expected = withFactor ? 'AGENT@SECONDS:FACTOR as in pi-2@30:0.5' : 'AGENT@SECONDS as in pi-2@30';
    throw new ChairError('USAGE', `${flag} is wrong`, { expected, came: `"${text}"` });
  }
  if (kind !== 'speed' && kind !== 'link') return { kind, agent, atMs };
  if (!(Number(factor) > 0)) throw new ChairError('USAGE', `${flag} is wrong`, { expected: 'a factor above 0', came: `"${text}"` });
  return { kind, agent, atMs, factor: Number(factor) };
}

/** `inFlight`: outstanding frames where neither rate is given. Throws USAGE. */
export function parseLoad(options: OptionValues, inFlight: number): Load {
  const rate = optionText(options, 'rate');
  const poisson = optionText(options, 'poisson');
  if (rate !== '' && poisson !== '')
    throw new ChairError('USAGE', 'frames come in one way only', { expected: '--rate or --poisson', came: 'both' });
  if (rate !== '') return { kind: 'rate', framesPerSecond: positive(rate, '--rate') };
  if (poisson !== '') return { kind: 'poisson', framesPerSecond: positive(poisson, '--poisson') };
  return { kind: 'closed', inFlight };
}

/** Throws USAGE. */
export function positive(text: string, what: string, most = 1e6): number {
  const value = Number(text);
  if (/^\d*\.?\d+(e-?\d+)?$/.test(text) && value > 0 && value <= most) return value;
  throw new ChairError('USAGE', `${what} is wrong`, { expected: `a number above 0, at most ${most}`, came: `"${text}"` });
}
