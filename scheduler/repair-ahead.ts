/**
 * Local repairs computed before anything is lost: for each agent that may be lost, the likely ones first, who takes its seats, and what has to be on whose disk
 * for that. Each repair reckons with what those before it brought; nobody's disk gets more than its budget. Pure.
 */
import type { SliceRef } from '../broker/plan.js';
import { SERIALISE_BYTES_PER_SECOND } from './planners/cost.js';
import { type Device, isRefusal, type Links } from './planners/problem.js';
import { type Repair, type RepairQuestion, repair } from './repair.js';

/** Loading a slice, ms, besides reading its weights: 0.6 s for the 233 MiB of AlexNet at 0.18 of a core. */
const LOAD_MS = 100;
/** Bytes that are moved while nothing is lost cost so much of the time that they would cost then. */
const AHEAD_COST = 0.1;

/** What agents have. */
export interface Holdings {
  /** A blob, by its sha256, on the agent's disk. */
  stored(agent: string, sha256: string): boolean;
  /** A slice, by the sha256 of its graph, in the agent's memory. */
  loaded(agent: string, sha256: string): boolean;
}

/** Bytes of the slices' blobs that an agent does not have yet. */
export function missingBytes(holdings: Pick<Holdings, 'stored'>, agent: string, slices: readonly SliceRef[]): number {
  const missing = new Map<string, number>();
  for (const { graph, blobs } of slices) {
    for (const { sha256, sizeBytes } of [graph, ...blobs]) if (!holdings.stored(agent, sha256)) missing.set(sha256, sizeBytes);
  }
  return [...missing.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** How long until slices are loaded on an agent that is asked now, ms. Pure but for what `holdings` answers. */
export function pauseBy(holdings: Holdings, devices: readonly Device[], links: Links): RepairQuestion['pauseMs'] {
  const known = new Map(devices.map((device) => [device.agent, device]));
  return (agent, slices) => {
    const device = known.get(agent);
    return fetchMs(device, links, missingBytes(holdings, agent, slices)) + loadMs(device, unloaded(holdings, agent, slices));
  };
}

function unloaded(holdings: Pick<Holdings, 'loaded'>, agent: string, slices: readonly SliceRef[]): SliceRef[] {
  return slices.filter(({ graph }) => !holdings.loaded(agent, graph.sha256));
}

function fetchMs(device: Device | undefined, { usual, gateway }: Links, bytes: number): number {
  if (bytes === 0) return 0;
  const down = device?.link?.downBytesPerSecond ?? usual.bytesPerSecond;
  return usual.latencyMs + (1000 * bytes) / Math.min(down, gateway?.upBytesPerSecond ?? usual.bytesPerSecond);
}

function loadMs(device: Device | undefined, slices: readonly SliceRef[]): number {
  const bytesPerMs = (device?.copyBytesPerSecond ?? SERIALISE_BYTES_PER_SECOND) / 1000;
  return slices.reduce((sum, { weightBytes }) => sum + LOAD_MS + weightBytes / bytesPerMs, 0);
}

export interface AheadQuestion extends Omit<RepairQuestion, 'lost' | 'pauseMs'> {
  /** Agents whose loss is prepared for, the likely ones first. */
  readonly likely: readonly string[];
  /** Of the plans in force and of nothing else: what agents have anyway. */
  readonly holdings: Holdings;
  /** What an agent may take besides: bytes of disk, and of memory (what does not fit there stays on disk). */
  readonly diskBytes: (agent: string) => number;
  readonly memoryBytes: (agent: string) => number;
}

export interface Ahead {
  /** By agent: slices to have at hand, those for the likely losses first. */
  readonly standby: ReadonlyMap<string, readonly SliceRef[]>;
  /** By agent that may be lost. */
  readonly repairs: ReadonlyMap<string, Repair>;
  /** Losses that only another plan can get over, and why. */
  readonly open: ReadonlyMap<string, string>;
}

/** Yields after each loss, so that whoever drives it can do other things between. */
export function* planAhead(question: AheadQuestion): Generator<string, Ahead> {
  const { likely, holdings, devices, links } = question;
  const shelves = new Shelves(question);
  const repairs = new Map<string, Repair>();
  const open = new Map<string, string>();
  const known = new Map(devices.map((device) => [device.agent, device]));
  for (const lost of likely) {
    const answer = repair({
      ...question,
      lost: new Set([lost]),
      mayTake: (agent) => agent !== lost && question.mayTake(agent),
      pauseMs: (agent, slices) => {
        const bytes = missingBytes(shelves, agent, slices);
        if (bytes > shelves.diskLeft(agent)) return Number.POSITIVE_INFINITY;
        const late = shelves.fits(agent, slices) ? 0 : loadMs(known.get(agent), unloaded(holdings, agent, slices));
        return late + AHEAD_COST * fetchMs(known.get(agent), links, bytes);
      },
    });
    if (isRefusal(answer)) open.set(lost, answer.reason);
    else {
      repairs.set(lost, answer);
      for (const { to, slice } of answer.moves) shelves.add(to, slice);
    }
    yield lost;
  }
  return { standby: shelves.standby, repairs, open };
}

/** What stands by where, so far. */
class Shelves implements Pick<Holdings, 'stored'> {
  readonly standby = new Map<string, SliceRef[]>();
  readonly #q: AheadQuestion;
  readonly #blobs = new Map<string, Set<string>>();
  readonly #diskBytes = new Map<string, number>();
  readonly #memoryBytes = new Map<string, number>();

  constructor(question: AheadQuestion) {
    this.#q = question;
  }

  stored(agent: string, sha256: string): boolean {
    return this.#q.holdings.stored(agent, sha256) || this.#blobs.get(agent)?.has(sha256) === true;
  }

  diskLeft(agent: string): number {
    return this.#q.diskBytes(agent) - (this.#diskBytes.get(agent) ?? 0);
  }

  /** Whether these slices can be in memory, too, beside what stands by there already. */
  fits(agent: string, slices: readonly SliceRef[]): boolean {
    const more = slices.filter((slice) => !this.#has(agent, slice)).reduce((sum, slice) => sum + bytesOf(slice), 0);
    return (this.#memoryBytes.get(agent) ?? 0) + more <= this.#q.memoryBytes(agent);
  }

  add(agent: string, slice: SliceRef): void {
    if (this.#has(agent, slice)) return;
    const blobs = this.#blobs.get(agent) ?? new Set();
    this.#diskBytes.set(agent, (this.#diskBytes.get(agent) ?? 0) + missingBytes(this, agent, [slice]));
    this.#memoryBytes.set(agent, (this.#memoryBytes.get(agent) ?? 0) + bytesOf(slice));
    for (const { sha256 } of [slice.graph, ...slice.blobs]) blobs.add(sha256);
    this.#blobs.set(agent, blobs);
    this.standby.set(agent, [...(this.standby.get(agent) ?? []), slice]);
  }

  #has(agent: string, { graph }: SliceRef): boolean {
    return (
      this.#q.holdings.loaded(agent, graph.sha256) || this.standby.get(agent)?.some((other) => other.graph.sha256 === graph.sha256) === true
    );
  }
}

function bytesOf({ weightBytes, activationBytes }: SliceRef): number {
  return weightBytes + activationBytes;
}

/** What is known of an agent that says how likely it is lost. */
export interface Risk {
  readonly agent: string;
  /** It may be gone already. */
  readonly suspect: boolean;
  /** How often it was lost of late. */
  readonly losses: number;
  /** Of the seats that nobody else could take at once. */
  readonly bytes: number;
}

/** Agents whose loss to prepare for, the likely ones first; of equally likely ones that whose loss costs most. Those that can be spared are not in it. */
export function likelyFirst(risks: readonly Risk[]): string[] {
  return risks
    .filter(({ bytes }) => bytes > 0)
    .sort((a, b) => Number(b.suspect) - Number(a.suspect) || b.losses - a.losses || b.bytes - a.bytes || (a.agent < b.agent ? -1 : 1))
    .map(({ agent }) => agent);
}
