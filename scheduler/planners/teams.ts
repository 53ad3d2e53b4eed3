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

  constructor(problem: PlanProblem, table: BlockTable, devices: readonly Device[]) {
    this.#table = table;
    this.#devices = devices;
    this.#ends = new Ends(devices, problem.links);
    const cuts = sizes(devices.length).flatMap((n) => CUTS.map((cut) => this.#team(cut, n)));
    this.#teams = [{ cut: 'whole', shares: [1], starts: [0] }, ...cuts];
  }

  run(wanted: number): SeatedStage[][] {
    const count = this.#table.length;
    const reached: Map<number, Reached>[] = Array.from({ length: count + 1 }, () => new Map());
    const none: Reached = { ms: 0, held: new Float64Array(this.#devices.length), stage: undefined, team: undefined, before: undefined };
    reached[0]?.set(-1, none);
    for (let done = 0; done < count; done++) {
      for (const before of reached[done]?.values() ?? []) {
        for (const [t, team] of this.#teams.entries()) {
          const last = team.cut === 'whole' ? count : Math.min(count, done + MOST_BLOCKS);
          for (let end = done + 1; end <= last; end++) {
            const next = this.#extend(before, done, end, team, reached[end]?.get(t)?.ms ?? Number.POSITIVE_INFINITY);
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
    return { cut, shares, starts: shares.map((_, i) => shares.slice(0, i).reduce((a, b) => a + b, 0)) };
  }

  /** `full`: it does not fit, nor would more blocks; `uncut`: this team cannot cut it, nor more blocks. Undefined: no better than `best`. */
  #extend(before: Reached, from: number, end: number, team: Team, best: number): Reached | 'full' | 'uncut' | undefined {
    const stage = this.#stage(from, end, team);
    // A pair takes two layers: one more block may make it one.
    if (stage === undefined) return team.cut === 'pair' && end - from < 2 ? undefined : 'uncut';
    const held = before.held.slice();
    for (const [i, part] of stage.parts.entries()) {
      held[i] = (held[i] ?? 0) + part.weightBytes;
      const memory = this.#devices[i]?.memoryBytes ?? 0;
      if (memory > 0 && (held[i] ?? 0) + part.activationBytes + 2 * part.inBytes + ENGINE_BYTES > memory) return 'full';
    }
    if (before.ms + stage.slowestMs >= best) return undefined;
    const ms = before.ms + stage.slowestMs + this.#moveMs(before.team, team, stage.parts, this.#table.bytesAt(from));
    if (ms >= best) return undefined;
    const spec = this.#table.spec(from, end, team.cut, team.cut === 'whole' ? [1] : team.shares);
    const agents = [this.#devices.slice(0, team.shares.length).map(({ agent }) => agent)];
    return { ms, held, stage: { spec, agents }, team, before };
  }

  /** The parts of a stage and the time of the slowest: the same wherever the blocks before are. */
  #stage(from: number, end: number, team: Team): Priced | undefined {
    const key = (from * 4096 + end) * 64 + this.#teams.indexOf(team);
    if (!this.#stages.has(key)) this.#stages.set(key, this.#priced(from, end, team));
    return this.#stages.get(key);
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
    const sent = new Float64Array(from?.shares.length ?? 1);
    const messages = new Float64Array(sent.length);
    let longest = 0;
    let crossed = false;
    // Under a quota messages take their CPU from the runs, and what a stage waits for them is made up for.
    let cpuMs = 0;
    for (const [i, part] of parts.entries()) {
      let came = 0;
      let count = 0;
      for (let j = 0; j < sent.length; j++) {
        if (from !== undefined && i === j) continue;
        const bytes = from === undefined ? part.inBytes : this.#wantedBytes(from, j, to, i, part.inBytes, fullBytes);
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
    const door = (j: number): string => (from === undefined ? DISPATCHER : (this.#devices[j]?.agent ?? ''));
    let encodingMs = 0;
    for (const [j, bytes] of sent.entries()) {
      if (bytes <= 0) continue;
      longest = Math.max(longest, this.#ends.linkMs(door(j), 'up', undefined, bytes) + ((messages[j] ?? 1) - 1) * MESSAGE_OVERHEAD_MS);
      if (from !== undefined) encodingMs = Math.max(encodingMs, this.#handledMs(door(j), bytes, messages[j] ?? 1));
    }
    const [first = DISPATCHER] = this.#devices.map(({ agent }) => agent);
    const waitMs =
      longest + this.#ends.latencyMs(door(0), first) + this.#ends.cpuMs(door(0), (sent[0] ?? 0) / Math.max(1, messages[0] ?? 1));
    const quota = this.#devices[0]?.quota;
    return quota === undefined ? waitMs : Math.max(cpuMs + encodingMs, waitMs - quota.periodMs);
  }

  /** CPU of so many messages at one end. */
  #handledMs(end: string, bytes: number, messages: number): number {
    return messages * this.#ends.cpuMs(end, bytes / messages);
  }

  /** What part i of `to` needs of what part j of `from` holds. */
  #wantedBytes(from: Team, j: number, to: Team, i: number, inBytes: number, fullBytes: number): number {
    // Sums of partial outputs: each part has one of all of it.
    if (from.cut === 'pair') return inBytes;
    const share = from.shares[j] ?? 0;
    if (from.cut !== 'rows' || to.cut !== 'rows') return share * inBytes;
    const margin = Math.max(0, inBytes - (to.shares[i] ?? 0) * fullBytes) / 2 / Math.max(1, fullBytes);
    const start = (to.starts[i] ?? 0) - margin;
    const end = (to.starts[i] ?? 0) + (to.shares[i] ?? 0) + margin;
    const overlap = Math.min(end, (from.starts[j] ?? 0) + share) - Math.max(start, from.starts[j] ?? 0);
    return overlap > 1e-6 ? overlap * fullBytes : 0;
  }

  #deliveryMs({ team }: Reached): number {
    const bytes = this.#table.bytesAt(this.#table.length) * (team?.cut === 'pair' ? team.shares.length : 1);
    const messages = (team?.shares.length ?? 1) - 1;
    return this.#ends.linkMs(DISPATCHER, 'down', undefined, bytes) + messages * MESSAGE_OVERHEAD_MS;
  }
}

function stagesOf(reached: Reached): SeatedStage[] {
  const stages: SeatedStage[] = [];
  for (let at: Reached | undefined = reached; at !== undefined; at = at.before) if (at.stage !== undefined) stages.unshift(at.stage);
  return stages;
}
