/**
 * Device files: which devices there are, when they are not there. YAML or JSON; see docs/planning.md, "Device files".
 * `parseDeviceFile` checks the text, `expand` makes of it what planners take. Throws DEVICES_INVALID.
 */
import { z } from 'zod';
import { ChairError } from '../../broker/errors.js';
import { DISPATCHER, NAME_PATTERN } from '../../broker/topics.js';
import type { Model } from '../../models/model.js';
import { faster } from '../planners/faster.js';
import type { AccessLink, Device, Link, Links, ModelFacts } from '../planners/problem.js';
import { readYaml } from '../read-yaml.js';
import { firstIssue } from '../schema-issue.js';
import { type DeviceProfile, PROFILES, usable } from './profile.js';
import { PUBLISHED_LINKS } from './published.js';

/** Larger files are no lists of devices. */
export const MAX_DEVICE_FILE_BYTES = 1 << 20;
const MAX_DEVICES = 10_000;

const UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };
const RATES: Readonly<Record<string, number>> = { bit: 1 / 8, kbit: 1e3 / 8, mbit: 1e6 / 8, gbit: 1e9 / 8 };

const memory = z
  .union([z.number(), z.string()])
  .transform((value) => {
    const [, count, unit] = /^(\d+(?:\.\d+)?)\s*([kmgtb]?)(?:i?b)?$/i.exec(String(value).trim()) ?? [];
    return count === undefined ? Number.NaN : Math.round(Number(count) * (UNITS[(unit ?? '').toLowerCase()] ?? Number.NaN));
  })
  .refine((bytes) => bytes >= 2 ** 20 && bytes <= 2 ** 50, 'memory such as 1g or 512m');

const rate = z
  .string()
  .transform((text) => {
    const [, count, unit] = /^(\d+(?:\.\d+)?)\s*([kmg]?bit)$/i.exec(text.trim()) ?? [];
    return count === undefined ? Number.NaN : Number(count) * (RATES[(unit ?? '').toLowerCase()] ?? Number.NaN);
  })
  .refine((bytesPerSecond) => bytesPerSecond >= 1000 && bytesPerSecond <= 1e12, 'a rate from 8kbit to 8000gbit, such as 100mbit or 1gbit');

const latency = z
  .union([z.number(), z.string()])
  .transform((value) => Number(String(value).trim().replace(/ms$/, '')))
  .refine((ms) => ms >= 0 && ms <= 60_000, 'a latency such as 2ms, at most 60000ms');

const link = z.union(
  [z.enum(Object.keys(PUBLISHED_LINKS) as [keyof typeof PUBLISHED_LINKS]), z.strictObject({ rate, latency: latency.default(1) })],
  { error: `a link: {rate: 100mbit, latency: 2ms} or ${Object.keys(PUBLISHED_LINKS).join(', ')}` },
);

const name = z.string().regex(NAME_PATTERN, 'letters, digits, dot, dash and underscore, at most 64');

const group = z.strictObject({
  profile: z.string().optional(),
  /** Without a profile. */
  macsPerSecond: z.number().min(1e6).max(1e15).optional(),
  memoryBytesPerSecond: z.number().min(1e6).max(1e13).optional(),
  count: z.int().min(1).max(MAX_DEVICES).default(1),
  name: name.optional(),
  memory: memory.optional(),
  /** Relative to the profile: 0.5 takes twice as long. */
  speed: z.number().min(0.001).max(1000).default(1),
  link: link.optional(),
  host: name.optional(),
});

const file = z.strictObject({
  devices: z.array(group).min(1).max(1000),
  link: link.optional(),
  gateway: z.strictObject({ link }).optional(),
  /** All bytes pass one medium, such as Wi-Fi, of the rate of `link`. */
  sharedMedium: z.boolean().default(false),
});

export type DeviceFile = z.infer<typeof file>;
type Group = z.infer<typeof group>;
type GivenLink = z.infer<typeof link>;

export interface Fleet {
  readonly devices: readonly Device[];
  readonly links: Links;
  /** Of each profile, how its speeds were derived for this model; and the links. */
  readonly notes: readonly string[];
}

function invalid(message: string, expected: string, came?: string): ChairError {
  return new ChairError('DEVICES_INVALID', message, { expected, ...(came === undefined ? {} : { came }) });
}

/** Throws DEVICES_INVALID. */
export function parseDeviceFile(text: string, what = 'the device file'): DeviceFile {
  if (text.length > MAX_DEVICE_FILE_BYTES)
    throw invalid(`${what} is too long`, `at most ${MAX_DEVICE_FILE_BYTES} characters`, `${text.length}`);
  let tree: unknown;
  try {
    tree = readYaml(text);
  } catch (cause) {
    const came = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    throw invalid(`${what} is not readable`, 'YAML or JSON', came);
  }
  const result = file.safeParse(tree);
  if (!result.success) {
    const { where, expected, came } = firstIssue(result.error, file, tree);
    throw invalid(`${what} is wrong${where === '' ? '' : ` at ${where}`}`, expected, came);
  }
  for (const [at, { profile, macsPerSecond, memory: bytes }] of result.data.devices.entries()) {
    const where = `${what} is wrong at devices[${at}]`;
    if (profile !== undefined) {
      if (!PROFILES.has(profile)) throw invalid(where, `a profile: ${[...PROFILES.keys()].join(', ')}`, `"${profile}"`);
      if (macsPerSecond !== undefined) throw invalid(where, 'a profile, or macsPerSecond, not both');
    } else if (macsPerSecond === undefined || bytes === undefined) {
      throw invalid(where, 'a profile, or macsPerSecond and memory');
    }
  }
  return result.data;
}

/** Names that are free: `pi4-1`, `pi4-2`, ... or, of one device with a name, that. */
function namesOf(groups: readonly Group[]): string[][] {
  const taken = new Set<string>([DISPATCHER]);
  return groups.map((one) => {
    const base = one.name ?? one.profile ?? 'device';
    const names: string[] = [];
    for (let at = 1; names.length < one.count; at++) {
      const candidate = one.count === 1 && one.name !== undefined && at === 1 ? base : `${base}-${at}`;
      if (one.count === 1 && one.name !== undefined && taken.has(candidate))
        throw candidate === DISPATCHER
          ? invalid('the device file is wrong', 'another name: this is what plans call the gateway', `"${candidate}"`)
          : invalid('the device file is wrong', 'names that differ', `"${candidate}" twice`);
      if (taken.has(candidate)) continue;
      taken.add(candidate);
      names.push(candidate);
    }
    return names;
  });
}

function linkOf(given: GivenLink): Link {
  return typeof given === 'string' ? PUBLISHED_LINKS[given] : { bytesPerSecond: given.rate, latencyMs: given.latency };
}

/** One end of a link: half of the latency is there. */
function accessOf(given: GivenLink): AccessLink {
  const { bytesPerSecond, latencyMs } = linkOf(given);
  return { upBytesPerSecond: bytesPerSecond, downBytesPerSecond: bytesPerSecond, latencyMs: latencyMs / 2 };
}

/** The devices of a file, for one model: speeds depend on it. Throws DEVICES_INVALID. */
export function expand(given: DeviceFile, model: Model, facts: ModelFacts): Fleet {
  const total = given.devices.reduce((sum, one) => sum + one.count, 0);
  if (total > MAX_DEVICES) throw invalid('the device file has too many devices', `at most ${MAX_DEVICES}`, `${total}`);
  const notes = new Map<string, string>();
  const names = namesOf(given.devices);
  const usual: GivenLink = given.link ?? defaultLink(given.devices);
  const devices = given.devices.flatMap((one, g): Device[] => {
    const profile = one.profile === undefined ? undefined : PROFILES.get(one.profile);
    const speeds = speedsOf(one, profile, model, facts, notes);
    const own = one.link ?? (given.link === undefined && profile !== undefined && profile.link !== usual ? profile.link : undefined);
    return (names[g] ?? []).map((agent) => ({
      agent,
      ...speeds,
      memoryBytes: memoryOf(one, profile),
      ...(own === undefined ? {} : { link: accessOf(own) }),
      ...(one.host === undefined ? {} : { host: one.host }),
    }));
  });
  const { bytesPerSecond, latencyMs } = linkOf(usual);
  const shared = given.sharedMedium ? { sharedBytesPerSecond: bytesPerSecond } : {};
  const gateway = given.gateway === undefined ? {} : { gateway: accessOf(given.gateway.link) };
  if (typeof usual === 'string') notes.set('link', `link ${usual}: ${PUBLISHED_LINKS[usual].source}`);
  return {
    devices,
    links: { usual: { bytesPerSecond, latencyMs }, between: new Map(), ...gateway, ...shared },
    notes: [...notes.values()],
  };
}

function defaultLink(groups: readonly Group[]): GivenLink {
  const profile = groups.map((one) => PROFILES.get(one.profile ?? '')).find((found) => found !== undefined);
  return profile?.link ?? 'gigabit';
}

/** A part of a board's memory is the system's. */
function memoryOf(one: Group, profile: DeviceProfile | undefined): number {
  const memoryBytes = one.memory ?? profile?.memoryBytes ?? 0;
  return profile === undefined ? usable(memoryBytes) : profile.usableBytes(memoryBytes);
}

function speedsOf(one: Group, profile: DeviceProfile | undefined, model: Model, facts: ModelFacts, notes: Map<string, string>) {
  if (profile === undefined) {
    const { macsPerSecond = 0, memoryBytesPerSecond } = one;
    return { macsPerSecond: macsPerSecond * one.speed, ...(memoryBytesPerSecond === undefined ? {} : { memoryBytesPerSecond }) };
  }
  const { note, ...speeds } = profile.speeds(model, facts);
  notes.set(profile.name, `${profile.name} (${profile.source}): ${note}`);
  return one.speed === 1 ? speeds : faster(speeds, one.speed);
}
