/**
 * What goes wrong, when and for how long: a pure function of the seed. The same seed and world give the same rounds, so a run that broke can be run again;
 * round n does not depend on how long the rounds before it took.
 */
import { createRandom, seedFor } from '../../models/random.js';

/** Every kind of fault. Each targets an agent but those of `MIDDLE`, `deploy` and `adjust`; a clock may be anybody's. */
export const KINDS = [
  /** SIGKILL, and the power comes back. */
  'kill',
  /** The same, and a byte on its disk has changed meanwhile. */
  'rot',
  /** SIGSTOP, then SIGCONT. */
  'hang',
  'link-down',
  'slow-link',
  'slow-cpu',
  'new-address',
  'disk-full',
  'join',
  /** Leaves in order: drains. */
  'leave',
  /** Messages that must not be acted upon. */
  'lie',
  /** A further deployment comes and goes. */
  'deploy',
  /** Another objective, and back: the plan changes under load. */
  'adjust',
  'gateway-kill',
  'gateway-hang',
  'broker-kill',
  /** The date of one process jumps, by up to ten years, and later back: of an agent, the gateway or the broker. */
  'clock',
] as const;

export type FaultKind = (typeof KINDS)[number];

/** Several agents at the same time, besides single faults. */
const STORMS = ['two-at-once', 'one-after-another', 'all-but-one', 'all'] as const;
type Storm = (typeof STORMS)[number];

export const LIES = [
  'old-term',
  'wrong-process',
  'other-scheduler',
  'other-name',
  'other-health',
  'other-schema',
  'false-will',
  'garbage',
  'old-epoch',
  'wrong-shape',
] as const;
export type Lie = (typeof LIES)[number];
/** Told with one fault: a list that is short enough to see who took offence at what. */
const LIES_AT_ONCE = 3;

export interface Fault {
  readonly kind: FaultKind;
  /** Name of an agent, `gateway`, `broker`, or of a deployment. */
  readonly target: string;
  /** From the start of the round. */
  readonly atMs: number;
  /** 0: it is done at once, and nothing is undone. */
  readonly forMs: number;
  /** Bits/s of a slow link, share of its CPU that an agent keeps, ms by which a clock jumps; 0 otherwise. */
  readonly value: number;
  readonly lies?: readonly Lie[];
}

export interface Round {
  readonly index: number;
  readonly faults: readonly Fault[];
  /** Agents that are there when everything is undone. */
  readonly present: readonly string[];
}

export interface World {
  /** Agents at the beginning. */
  readonly agents: readonly string[];
  /** Names that may join. */
  readonly spares: readonly string[];
  /** Kinds that can be done here; default all. */
  readonly kinds?: readonly FaultKind[];
}

/** It comes and goes. */
export const EXTRA_DEPLOYMENT = 'extra';
/** The planner seats it as it likes; its objective changes. */
export const PLANNED_DEPLOYMENT = 'planned';
const MIDDLE: ReadonlySet<FaultKind> = new Set<FaultKind>(['gateway-kill', 'gateway-hang', 'broker-kill']);
/** Fewer agents are not left: cuts need some. */
const FEWEST_AGENTS = 3;
/** Faults of a round begin within so long. */
const SPREAD_MS = 4000;
const ANOTHER_MS = 1000;

/** Shortest and longest time of each kind, ms: some are over before anybody could notice, some last longer than any patience. */
const DURATION_MS: Readonly<Record<FaultKind, readonly [number, number]>> = {
  kill: [100, 6000],
  rot: [100, 3000],
  hang: [300, 12_000],
  'link-down': [300, 12_000],
  'slow-link': [4000, 12_000],
  'slow-cpu': [4000, 12_000],
  'new-address': [0, 0],
  'disk-full': [3000, 10_000],
  join: [0, 0],
  leave: [0, 0],
  lie: [0, 0],
  deploy: [3000, 8000],
  adjust: [3000, 8000],
  'gateway-kill': [100, 5000],
  'gateway-hang': [300, 8000],
  'broker-kill': [100, 5000],
  clock: [1000, 10_000],
};

/** Of a shuffled deck without end: everything comes up before anything comes up twice. */
class Deck<T> {
  #left: T[] = [];

  constructor(
    private readonly all: readonly T[],
    private readonly random: () => number,
  ) {}

  draw(): T {
    if (this.#left.length === 0) this.#left = shuffled(this.all, this.random);
    const card = this.#left.pop();
    if (card === undefined) throw new Error('an empty deck');
    return card;
  }
}

export function shuffled<T>(all: readonly T[], random: () => number): T[] {
  return all
    .map((value) => ({ value, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}

/** Rounds without end. */
export function* schedule(seed: number, world: World): Generator<Round, never> {
  const kinds = world.kinds ?? KINDS;
  const random = createRandom(seedFor(seed, 'decks'));
  const faults = new Deck<FaultKind>(kinds, random);
  const storms = new Deck<Storm>(STORMS, random);
  const lies = new Deck<Lie>(LIES, random);
  let present = [...world.agents];
  for (let index = 0; ; index++) {
    const dice = createRandom(seedFor(seed, `round ${index}`));
    const isStorm = kinds.includes('kill') && dice() < 0.25;
    const made = isStorm ? storm(storms.draw(), present, dice) : mixed(faults, lies, present, world, dice);
    const left = made.filter(({ kind }) => kind === 'leave').map(({ target }) => target);
    const joined = made.filter(({ kind }) => kind === 'join').map(({ target }) => target);
    present = [...present.filter((agent) => !left.includes(agent)), ...joined];
    yield { index, faults: made.toSorted((a, b) => a.atMs - b.atMs), present };
  }
}

/** One to three faults, each of another machine. */
function mixed(kinds: Deck<FaultKind>, lies: Deck<Lie>, present: readonly string[], world: World, random: () => number): Fault[] {
  const made: Fault[] = [];
  const count = 1 + Math.floor(random() * 3);
  const taken = new Set<string>();
  const absent = [...world.agents, ...world.spares].filter((agent) => !present.includes(agent));
  for (let i = 0; i < count; i++) {
    const kind = kinds.draw();
    const candidates = targetsOf(kind, present, absent).filter((name) => !taken.has(name));
    const target = candidates[Math.floor(random() * candidates.length)];
    // Not possible now (nobody to join, too few to leave): the round has one fault less.
    if (target === undefined) continue;
    taken.add(target);
    made.push({ ...fault(kind, target, Math.round(random() * SPREAD_MS), random), ...(kind === 'lie' ? { lies: someOf(lies) } : {}) });
  }
  return made;
}

function someOf(lies: Deck<Lie>): Lie[] {
  return [...new Set(Array.from({ length: LIES_AT_ONCE }, () => lies.draw()))];
}

function targetsOf(kind: FaultKind, present: readonly string[], absent: readonly string[]): readonly string[] {
  if (kind === 'broker-kill') return ['broker'];
  if (MIDDLE.has(kind)) return ['gateway'];
  if (kind === 'deploy') return [EXTRA_DEPLOYMENT];
  if (kind === 'adjust') return [PLANNED_DEPLOYMENT];
  if (kind === 'join') return absent;
  if (kind === 'leave') return present.length > FEWEST_AGENTS ? present : [];
  if (kind === 'clock') return [...present, 'gateway', 'broker'];
  return present;
}

/** Agents lose their power together. */
function storm(kind: Storm, present: readonly string[], random: () => number): Fault[] {
  const some = shuffled(present, random);
  const count = kind === 'all' ? some.length : kind === 'all-but-one' ? some.length - 1 : Math.min(2, some.length);
  const gapMs = kind === 'one-after-another' ? Math.round(random() * ANOTHER_MS) : 0;
  return some.slice(0, count).map((target, i) => fault('kill', target, i * gapMs, random));
}

function fault(kind: FaultKind, target: string, atMs: number, random: () => number): Fault {
  const [shortest, longest] = DURATION_MS[kind];
  const forMs = Math.round(shortest + random() * (longest - shortest));
  return { kind, target, atMs, forMs, value: strengthOf(kind, random) };
}

function strengthOf(kind: FaultKind, random: () => number): number {
  // From a bad wireless link to half of a good one; from a throttled processor to a somewhat busy one.
  if (kind === 'slow-link') return Math.round(10 ** (5.7 + 1.6 * random()));
  if (kind === 'slow-cpu') return Number((0.25 + 0.45 * random()).toFixed(2));
  // From a second to ten years, forward or back.
  if (kind === 'clock') return Math.round(10 ** (3 + 8.5 * random())) * (random() < 0.5 ? -1 : 1);
  return 0;
}

/** One step of a round: something begins, or is undone. */
export interface Act {
  readonly atMs: number;
  readonly do: 'begin' | 'undo';
  readonly fault: Fault;
}

/** What is to be done in a round, in order. */
export function actsOf({ faults }: Round): Act[] {
  const acts = faults.flatMap((one): Act[] => [
    { atMs: one.atMs, do: 'begin', fault: one },
    ...(one.forMs > 0 ? [{ atMs: one.atMs + one.forMs, do: 'undo' as const, fault: one }] : []),
  ]);
  return acts.toSorted((a, b) => a.atMs - b.atMs);
}

const HOW: Partial<Record<FaultKind, (value: number) => string>> = {
  'slow-link': (value) => ` to ${(value / 1e6).toFixed(1)} Mbit/s`,
  'slow-cpu': (value) => ` to ${Math.round(100 * value)} %`,
  clock: (value) => ` by ${value < 0 ? '-' : '+'}${(Math.abs(value) / 86_400_000).toFixed(3)} days`,
};

/** In words, for the record: `kill agent-3 for 1.2 s at 0.4 s`. */
export function faultText({ kind, target, atMs, forMs, value, lies }: Fault): string {
  const how = HOW[kind]?.(value) ?? '';
  const what = lies === undefined ? kind : `lie (${lies.join(', ')})`;
  const long = forMs > 0 ? ` for ${(forMs / 1000).toFixed(1)} s` : '';
  return `${what} ${target}${how}${long} at ${(atMs / 1000).toFixed(1)} s`;
}
