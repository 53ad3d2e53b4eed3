/**
 * What is to be flashed: flags, or a fleet file (YAML), or both, become one checked request. Everything that a person can get wrong is found here,
 * before an image is opened.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { ChairError } from '../../broker/errors.js';
import { isTooDeep } from '../../broker/nesting.js';
import { withHome } from '../home.js';
import {
  type Card,
  checkGateway,
  checkName,
  checkTimeServer,
  checkTimezone,
  checkUser,
  expandNames,
  makeWifi,
  parseSshKeys,
  type Wifi,
} from './card.js';

const wifiSchema = z.strictObject({
  ssid: z.string(),
  country: z.string().optional(),
  hidden: z.boolean().optional(),
  passwordFile: z.string().optional(),
});

/** What may be said for all cards, and again for one. */
const cardFields = {
  gateway: z.string().optional(),
  wifi: z.union([wifiSchema, z.literal(false)]).optional(),
  sshKey: z.string().optional(),
  user: z.string().optional(),
  timezone: z.string().optional(),
  timeServers: z.array(z.string()).max(8).optional(),
};

const fleetSchema = z.strictObject({
  image: z.string().optional(),
  bundle: z.string().optional(),
  /** A folder; each card's image is NAME.img in it. */
  out: z.string().optional(),
  ...cardFields,
  cards: z
    .array(z.strictObject({ name: z.string(), out: z.string().optional(), ...cardFields }))
    .min(1)
    .max(1_000),
});

type Fleet = z.output<typeof fleetSchema>;
type CardFields = Omit<Fleet['cards'][number], 'name' | 'out'>;

/** Flags as they came; undefined when they were not given. */
export interface FlashFlags {
  readonly image?: string;
  readonly bundle?: string;
  readonly name?: string;
  readonly count?: string;
  readonly fleet?: string;
  readonly gateway?: string;
  readonly wifi?: string;
  readonly wifiCountry?: string;
  readonly wifiPasswordFile?: string;
  readonly wifiHidden?: boolean;
  readonly sshKey?: string;
  readonly user?: string;
  readonly timezone?: string;
  readonly timeServer?: readonly string[];
  readonly out?: string;
  readonly device?: string;
}

export interface FlashTarget {
  readonly card: Card;
  /** The image to write; undefined when a device is written. */
  readonly out?: string;
}

export interface FlashRequest {
  readonly image: string;
  readonly bundle: string;
  readonly targets: readonly FlashTarget[];
  readonly device?: string;
}

/** Asks the person for a network's password; given to `readRequest` so that tests need no terminal. */
export type AskPassword = (ssid: string) => Promise<string>;

/** Throws USAGE, CONFIG_INVALID, FILE_NOT_FOUND. */
export async function readRequest(flags: FlashFlags, cluster: string, askPassword: AskPassword): Promise<FlashRequest> {
  refuseAlone(flags);
  const fleet = flags.fleet === undefined ? fleetOfFlags(flags) : readFleet(flags.fleet, flags);
  const image = flags.image ?? fleet.image;
  const bundle = flags.bundle ?? fleet.bundle;
  if (image === undefined) throw missing('--image', 'the path of a Raspberry Pi OS image (.img or .img.xz)');
  if (bundle === undefined) throw missing('--bundle', 'the file that `musical-chair bundle --arch arm64` made');
  const passwords = new Map<string, string>();
  const askOnce: AskPassword = async (ssid) => {
    const password = passwords.get(ssid) ?? (await askPassword(ssid));
    passwords.set(ssid, password);
    return password;
  };
  const targets: FlashTarget[] = [];
  for (const entry of fleet.cards) {
    const card = await cardOf(entry.name, cluster, { ...fleet, ...withoutUndefined(entry), ...flagFields(flags) }, askOnce);
    targets.push({ card, ...(flags.device === undefined ? { out: outOf(entry, fleet, flags) } : {}) });
  }
  refuseTwice(
    targets.map((t) => t.card.name.toLowerCase()),
    'name',
  );
  refuseTwice(
    targets.flatMap((t) => (t.out === undefined ? [] : [path.resolve(t.out)])),
    'output',
  );
  return { image, bundle, targets, ...(flags.device === undefined ? {} : { device: flags.device }) };
}

/** A flag that would change nothing is a mistake of somebody who expects something of it. */
function refuseAlone(flags: FlashFlags): void {
  const alone = (['wifiCountry', 'wifiPasswordFile', 'wifiHidden'] as const).find((flag) => flags[flag] !== undefined);
  if (alone === undefined || flags.wifi !== undefined) return;
  throw new ChairError('USAGE', `--${alone.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} goes with --wifi`, {
    expected: '--wifi SSID',
    came: 'none',
  });
}

function fleetOfFlags(flags: FlashFlags): Fleet {
  if (flags.name === undefined) throw missing('--name', "the agent's name such as pi-1, or pi-%d with --count");
  const count = Number(flags.count ?? '1');
  if (!/^\d+$/.test(flags.count ?? '1') || count < 1 || count > 1_000)
    throw new ChairError('USAGE', '--count is wrong', { expected: 'a whole number from 1 to 1000', came: `"${flags.count}"` });
  return { cards: expandNames(flags.name, count).map((name) => ({ name })) };
}

function readFleet(file: string, flags: FlashFlags): Fleet {
  const both = (['name', 'count'] as const).find((flag) => flags[flag] !== undefined);
  if (both !== undefined)
    throw new ChairError('USAGE', `--${both} and --fleet contradict each other`, { todo: 'The fleet file names the cards.' });
  let tree: unknown;
  try {
    const text = readText(file, 'a fleet file');
    if (isTooDeep(text)) throw new Error('values within values within values');
    tree = parse(text);
  } catch (cause) {
    if (cause instanceof ChairError) throw cause;
    throw new ChairError('CONFIG_INVALID', `${file} is not readable`, {
      expected: 'YAML',
      came: cause instanceof Error ? cause.message : String(cause),
    });
  }
  const result = fleetSchema.safeParse(tree);
  if (!result.success) {
    const issue = result.error.issues[0];
    const where = issue === undefined || issue.path.length === 0 ? 'the file' : issue.path.join('.');
    throw new ChairError('CONFIG_INVALID', `the fleet file ${file} is wrong`, {
      expected: issue?.message ?? 'cards',
      came: `something else at ${where}`,
      todo: 'docs/flashing.md shows a fleet file.',
    });
  }
  return relativeTo(path.dirname(file), result.data);
}

/** Paths in a fleet file are meant from where the file is. */
function relativeTo(folder: string, fleet: Fleet): Fleet {
  const from = (file: string | undefined): string | undefined => (file === undefined ? undefined : path.resolve(folder, withHome(file)));
  const fields = <T extends CardFields>(fields: T): T => ({
    ...fields,
    ...(fields.sshKey === undefined ? {} : { sshKey: from(fields.sshKey) }),
    ...(fields.wifi === undefined || fields.wifi === false || fields.wifi.passwordFile === undefined
      ? {}
      : { wifi: { ...fields.wifi, passwordFile: from(fields.wifi.passwordFile) } }),
  });
  return {
    ...fields(fleet),
    image: from(fleet.image),
    bundle: from(fleet.bundle),
    out: from(fleet.out),
    cards: fleet.cards.map((card) => ({ ...fields(card), out: from(card.out) })),
  };
}

/** A flag beats the file, for every card. */
function flagFields(flags: FlashFlags): Partial<CardFields> {
  return withoutUndefined({
    gateway: flags.gateway,
    sshKey: flags.sshKey,
    user: flags.user,
    timezone: flags.timezone,
    timeServers: flags.timeServer === undefined ? undefined : [...flags.timeServer],
    wifi:
      flags.wifi === undefined
        ? undefined
        : { ssid: flags.wifi, country: flags.wifiCountry, hidden: flags.wifiHidden, passwordFile: flags.wifiPasswordFile },
  });
}

async function cardOf(name: string, cluster: string, fields: CardFields, ask: AskPassword): Promise<Card> {
  if (fields.user !== undefined && fields.sshKey === undefined)
    throw new ChairError('USAGE', `nobody can log in as ${fields.user} on ${name}`, {
      expected: '--ssh-key, or sshKey in the fleet file',
      came: 'none',
    });
  const wifi = fields.wifi === undefined || fields.wifi === false ? undefined : await wifiOf(fields.wifi, ask);
  return {
    name: checkName(name),
    cluster,
    user: checkUser(fields.user ?? 'pi'),
    sshKeys: fields.sshKey === undefined ? [] : parseSshKeys(readText(fields.sshKey, '--ssh-key'), fields.sshKey),
    timeServers: (fields.timeServers ?? []).map(checkTimeServer),
    ...(fields.gateway === undefined ? {} : { gateway: checkGateway(fields.gateway) }),
    ...(fields.timezone === undefined ? {} : { timezone: checkTimezone(fields.timezone) }),
    ...(wifi === undefined ? {} : { wifi }),
  };
}

async function wifiOf(wifi: z.output<typeof wifiSchema>, ask: AskPassword): Promise<Wifi> {
  const o = { ssid: wifi.ssid, country: wifi.country ?? '', hidden: wifi.hidden ?? false };
  // All that can be wrong without the password is wrong before somebody is asked for it.
  makeWifi({ ...o, password: '0'.repeat(64) });
  const password =
    wifi.passwordFile === undefined ? await ask(wifi.ssid) : readText(wifi.passwordFile, '--wifi-password-file').replace(/\r?\n$/, '');
  return makeWifi({ ...o, password });
}

function outOf(entry: Fleet['cards'][number], fleet: Fleet, flags: FlashFlags): string {
  if (entry.out !== undefined && flags.out === undefined) return entry.out;
  const out = flags.out ?? fleet.out;
  if (out === undefined) throw missing('--out or --device', 'the image to write such as pi-1.img, or the card such as /dev/sdb');
  const isFolder = flags.out === undefined || /[\\/]$/.test(out);
  if (isFolder) return path.join(out, `${entry.name}.img`);
  if (fleet.cards.length === 1) return out;
  // `pi-%d.img` beside `pi-%d`, or the name itself.
  if (/%0?\d?d/.test(out)) return expandNames(out, fleet.cards.length)[fleet.cards.indexOf(entry)] ?? out;
  throw new ChairError('USAGE', '--out is wrong', {
    expected: `a folder (cards/) or a pattern (pi-%d.img): there are ${fleet.cards.length} cards`,
    came: out,
  });
}

function refuseTwice(values: readonly string[], what: string): void {
  const twice = values.find((value, i) => values.indexOf(value) !== i);
  if (twice !== undefined)
    throw new ChairError('USAGE', `two cards have one ${what}`, { expected: `one ${what} for each card`, came: `${twice} twice` });
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> };
}

function readText(file: string, what: string): string {
  try {
    return readFileSync(withHome(file), 'utf8');
  } catch (cause) {
    const came = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be read`, { expected: `a file for ${what}`, came, cause });
  }
}

function missing(flag: string, expected: string): ChairError {
  return new ChairError('USAGE', `${flag} is missing`, { expected });
}
