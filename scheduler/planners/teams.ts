/**
 * For latency on more devices or blocks than can be searched whole: every stage is on a team, the n fastest devices for some n, cut in one way with shares by
 * speed, or whole on the fastest. Dynamic programming over blocks done and the last team: a stage costs its slowest part, and between two stages the busiest end
 * of a link decides. Costs come from the block table; what is found is cut and estimated for real by the caller.
 */
import { DISPATCHER } from '../../broker/topics.js';
import type { BlockTable, TableCut, TablePart } from './block-table.js';
import { ENGINE_BYTES, MESSAGE_OVERHEAD_MS, seatMs, slowdown } from './cost.js';
import { Ends } from './ends.js';
import { sizes } from './options.js';
import { bySpeed, type Device, type PlanProblem, type SeatedStage } from './problem.js';

/** Cut stages of more blocks than this compute too much twice. */
const MOST_BLOCKS = 4;
const CUTS = ['rows', 'channels', 'pair'] as const satisfies readonly TableCut[];

interface Team {
  readonly cut: 'whole' | TableCut;
  readonly shares: readonly number[];
  /** Where each part's band begins. */
  readonly starts: readonly number[];
  readonly agents: readonly (readonly string[])[];
}

/** What one part takes in: `bytes` of each sender, or so many times its share of all, or times what of its band lies in `[start, end)`. */
interface Wanted {
  readonly of: 'each' | 'share' | 'band';
  readonly bytes: number;
  readonly start: number;
  readonly end: number;
}

interface Priced {
  readonly parts: readonly TablePart[];
  readonly slowestMs: number;
}

interface Reached {
  readonly ms: number;
  readonly held: Float64Array;
  readonly stage: SeatedStage | undefined;
  readonly team: Team | undefined;
  readonly before: Reached | undefined;
}

/** The best chains of stages by the table, best first, on some of `devices`. */
export function teams(problem: PlanProblem, table: BlockTable, devices: readonly Device[], wanted: number): SeatedStage[][] {
  return new Teams(problem, table, bySpeed(devices)).run(wanted);
}

class Teams {
  readonly #table: BlockTable;
  readonly #devices: readonly Device[];
  readonly #ends: Ends;
  readonly #teams: readonly Team[];
  readonly #stages = new Map<number, Priced | undefined>();
  /** Room for what each part of a team sends: bytes, and in how many messages. */
  readonly #sent: Float64Array;
  readonly #messages: Float64Array;

  constructor(problem: PlanProblem, table: BlockTable, devices: readonly Device[]) {
    this.#table = table;
    this.#devices = devices;
    this.#ends = new Ends(devices, problem.links);
    this.#sent = new Float64Array(devices.length);
    this.#messages = new Float64Array(devices.length);
    const cuts = sizes(devices.length).flatMap((n) => CUTS.map((cut) => this.#team(cut, n)));
    this.#teams = [{ cut: 'whole', shares: [1], starts: [0], agents: this.#agents(1) }, ...cuts];
  }

  run(wanted: number): SeatedStage[][] {
    const count = this.#table.length;
    const reached: Map<number, Reached>[] = Array.from({ length: count + 1 }, () => new Map());
    const none: Reached = { ms: 0, held: new Float64Array(this.#devices.length), stage: undefined, team: undefined, before: undefined };
    reached[0]?.set(-1, none);
    for (let done = 0; done < count; done++) {
      // Quickest first: then most of the others are seen to be too slow before it is known what moves.
      const quickest = [...(reached[done]?.values() ?? [])].sort((a, b) => a.ms - b.ms);
      for (const before of quickest) {
        for (const [t, team] of this.#teams.entries()) {
          const last = team.cut === 'whole' ? count : Math.min(count, done + MOST_BLOCKS);
          for (let end = done + 1; end <= last; end++) {
            const next = this.#extend(before, done, end, t, reached[end]?.get(t)?.ms ?? Number.POSITIVE_INFINITY);
            if (next === 'full' || next === 'uncut') break;
            if (next !== undefined) reached[end]?.set(t, next);
          }
        }
      }
    }
    const finished = [...(reached[count]?.values() ?? [])].map((last) => ({ last, ms: last.ms + this.#deliveryMs(last) }));
    return finished
      .sort((a, b) => a.ms - b.ms)
      .slice(0, wanted)
      .map(({ last }) => stagesOf(last));
  }

  #team(cut: TableCut, n: number): Team {
    const speeds = this.#devices.slice(0, n).map((device) => device.macsPerSecond / slowdown(device));
    const total = speeds.reduce((a, b) => a + b, 0);
    const shares = speeds.map((speed) => speed / total);
    return { cut, shares, starts: shares.map((_, i) => shares.slice(0, i).reduce((a, b) => a + b, 0)), agents: this.#agents(n) };
  }

  #agents(n: number): string[][] {
    return [this.#devices.slice(0, n).map(({ agent }) => agent)];
  }

  /** `full`: it does not fit, nor would more blocks; `uncut`: this team cannot cut it, nor more blocks. Undefined: no better than `best`. */
  #extend(before: Reached, from: number, end: number, t: number, best: number): Reached | 'full' | 'uncut' | undefined {
    const team = this.#teams[t];
    const stage = team === undefined ? undefined : this.#stage(from, end, t, team);
    // A pair takes two layers: one more block may make it one.
    if (team === undefined || stage === undefined) return team?.cut === 'pair' && end - from < 2 ? undefined : 'uncut';
    if (before.ms + stage.slowestMs >= best) return undefined;
    if (!this.#fits(before.held, stage.parts)) return 'full';
    const ms = before.ms + stage.slowestMs + this.#moveMs(before.team, team, stage.parts, this.#table.bytesAt(from));
    if (ms >= best) return undefined;
    const held = before.held.slice();
    for (const [i, part] of stage.parts.entries()) held[i] = (held[i] ?? 0) + part.weightBytes;
    const spec = this.#table.spec(from, end, team.cut, team.cut === 'whole' ? [1] : team.shares);
    return { ms, held, stage: { spec, agents: team.agents }, team, before };
  }

  #fits(held: Float64Array, parts: readonly TablePart[]): boolean {
    for (let i = 0; i < parts.length; i++) {
      const memory = this.#devices[i]?.memoryBytes ?? 0;
      const part = parts[i];
      if (part === undefined || memory === 0) continue;
      if ((held[i] ?? 0) + part.weightBytes + part.activationBytes + 2 * part.inBytes + ENGINE_BYTES > memory) return false;
    }
    return true;
  }

  /** The parts of a stage and the time of the slowest: the same wherever the blocks before are. */
  #stage(from: number, end: number, t: number, team: Team): Priced | undefined {
    const key = (from * 4096 + end) * this.#teams.length + t;
    const known = this.#stages.get(key);
    if (known !== undefined || this.#stages.has(key)) return known;
    const priced = this.#priced(from, end, team);
    this.#stages.set(key, priced);
    return priced;
  }

  #priced(from: number, end: number, team: Team): Priced | undefined {
    const parts: TablePart[] = [];
    const spec = this.#table.spec(from, end, team.cut);
    let slowestMs = 0;
    for (const [i, share] of team.shares.entries()) {
      const device = this.#devices[i];
      const part = team.cut === 'whole' ? this.#table.whole(from, end) : this.#table.part(from, end, team.cut, share);
      if (part === undefined || device === undefined) return undefined;
      slowestMs = Math.max(slowestMs, seatMs(device, part, spec, share));
      parts.push(part);
    }
    return { parts, slowestMs };
  }

  /** From the parts of one team (undefined: the gateway) to those of the next: the busiest end of all links. */
  #moveMs(from: Team | undefined, to: Team, parts: readonly TablePart[], fullBytes: number): number {
    const senders = from?.shares.length ?? 1;
    const [sent, messages] = [this.#sent, this.#messages];
    sent.fill(0, 0, senders);
    messages.fill(0, 0, senders);
    let longest = 0;
    let crossed = false;
    // Under a quota messages take their CPU from the runs, and what a stage waits for them is made up for.
    let cpuMs = 0;
    for (let i = 0; i < parts.length; i++) {
      const wanted = this.#wanted(from, to, i, parts[i]?.inBytes ?? 0, fullBytes);
      let came = 0;
      let count = 0;
      for (let j = 0; j < senders; j++) {
        if (from !== undefined && i === j) continue;
        const bytes = bytesOf(wanted, from, j);
        if (bytes <= 0) continue;
        sent[j] = (sent[j] ?? 0) + bytes;
        messages[j] = (messages[j] ?? 0) + 1;
        came += bytes;
        count++;
      }
      if (count === 0) continue;
      crossed = true;
      const name = this.#devices[i]?.agent ?? '';
      cpuMs = Math.max(cpuMs, this.#handledMs(name, came, count));
      longest = Math.max(
        longest,
        this.#ends.linkMs(name, 'down', undefined, came) + (count - 1) * MESSAGE_OVERHEAD_MS,
        this.#ends.cpuMs(name, came),
      );
    }
    if (!crossed) return 0;
    let encodingMs = 0;
    for (let j = 0; j < senders; j++) {
      const bytes = sent[j] ?? 0;
      if (bytes <= 0) continue;
      const door = this.#door(from, j);
      longest = Math.max(longest, this.#ends.linkMs(door, 'up', undefined, bytes) + ((messages[j] ?? 1) - 1) * MESSAGE_OVERHEAD_MS);
      if (from !== undefined) encodingMs = Math.max(encodingMs, this.#handledMs(door, bytes, messages[j] ?? 1));
    }
    const sender = this.#door(from, 0);
    const first = this.#devices[0]?.agent ?? DISPATCHER;
    const waitMs = longest + this.#ends.latencyMs(sender, first) + this.#ends.cpuMs(sender, (sent[0] ?? 0) / Math.max(1, messages[0] ?? 1));
    const quota = this.#devices[0]?.quota;
    return quota === undefined ? waitMs : Math.max(cpuMs + encodingMs, waitMs - quota.periodMs);
  }

  /** Who holds part j of a team; the gateway has all of the frame. */
  #door(from: Team | undefined, j: number): string {
    return from === undefined ? DISPATCHER : (this.#devices[j]?.agent ?? '');
  }

  /** CPU of so many messages at one end. */
  #handledMs(end: string, bytes: number, messages: number): number {
    return messages * this.#ends.cpuMs(end, bytes / messages);
  }

  /** What part i of `to` needs of each part of `from`. */
  #wanted(from: Team | undefined, to: Team, i: number, inBytes: number, fullBytes: number): Wanted {
    // Sums of partial outputs: each part has one of all of it.
    if (from === undefined || from.cut === 'pair') return { of: 'each', bytes: inBytes, start: 0, end: 0 };
    if (from.cut !== 'rows' || to.cut !== 'rows') return { of: 'share', bytes: inBytes, start: 0, end: 0 };
    const margin = Math.max(0, inBytes - (to.shares[i] ?? 0) * fullBytes) / 2 / Math.max(1, fullBytes);
    const start = (to.starts[i] ?? 0) - margin;
    const end = (to.starts[i] ?? 0) + (to.shares[i] ?? 0) + margin;
    return { of: 'band', bytes: fullBytes, start, end };
  }

  #deliveryMs({ team }: Reached): number {
    const bytes = this.#table.bytesAt(this.#table.length) * (team?.cut === 'pair' ? team.shares.length : 1);
    const messages = (team?.shares.length ?? 1) - 1;
    return this.#ends.linkMs(DISPATCHER, 'down', undefined, bytes) + messages * MESSAGE_OVERHEAD_MS;
  }
}

function bytesOf({ of, bytes, start, end }: Wanted, from: Team | undefined, j: number): number {
  if (of === 'each') return bytes;
  const share = from?.shares[j] ?? 0;
  if (of === 'share') return share * bytes;
  const begins = from?.starts[j] ?? 0;
  const overlap = Math.min(end, begins + share) - Math.max(start, begins);
  return overlap > 1e-6 ? overlap * bytes : 0;
}

function stagesOf(reached: Reached): SeatedStage[] {
  const stages: SeatedStage[] = [];
  for (let at: Reached | undefined = reached; at !== undefined; at = at.before) if (at.stage !== undefined) stages.unshift(at.stage);
  return stages;
}
