/**
 * The most frames per second that devices can compute however a model is divided: all of them busy all the time, no messages, no halos. Where a plan comes near it there is nothing left to
 * search for.
 *
 * A frame is work of several kinds: a run, visits of nodes, and of each rung of the roofline's ladder (roofline.ts) its MACs or the bytes that it moves. Devices may be unlike, and each could
 * do what it does best. So every kind gets a price: no device earns more in a millisecond than by the kind that pays it best, and all of them together must earn what the frames are worth (the
 * dual of a linear program). Any prices give a bound. Taken is the tightest of those by which all work pays equally on one of the devices (nothing is tighter where they are alike), and
 * of a price on MACs alone. A device that was measured is taken to do whole models: what it does best is not told apart.
 */
import { aroundMs, DEFAULT_MEMORY_BYTES_PER_SECOND, NODE_OVERHEAD_MS, RUN_OVERHEAD_MS, slowdown } from './cost.js';
import { wholeSpec } from './draft.js';
import { type Device, isRefusal, type PartFacts, type PlanProblem } from './problem.js';
import { leastWorkMs } from './profile-table.js';

/** Prices are made by so many devices that differ: with more of them one bound is as good as another. */
const MOST_REFERENCES = 8;
/** In a row of kinds, the run and the nodes stand before MACs and bytes of each rung in turn. */
const BEFORE_RUNGS = 2;

/** What a device takes for all of a frame at least, ms: for each kind of work, or, where it was measured, altogether. */
interface Work {
  readonly kinds: readonly number[];
  readonly measuredMs: number | undefined;
  /** Devices that take as long. */
  count: number;
}

/** Frames per second; infinite where nothing can be told. */
export function mostFps({ facts, devices }: Pick<PlanProblem, 'facts' | 'devices'>): number {
  const cut = facts.cut([wholeSpec(facts)]);
  const whole = isRefusal(cut) ? undefined : cut.stages[0]?.parts[0];
  if (whole === undefined) return Number.POSITIVE_INFINITY;
  const works = new Map<string, Work>();
  for (const device of devices) {
    const work = workOn(device, whole, facts.blocks);
    if (work === undefined) return Number.POSITIVE_INFINITY;
    const key = `${work.measuredMs} ${work.kinds.join()}`;
    const known = works.get(key) ?? work;
    known.count++;
    works.set(key, known);
  }
  const all = [...works.values()];
  const references = all.filter(({ measuredMs }) => measuredMs === undefined).slice(0, MOST_REFERENCES);
  const prices = [...references.map(({ kinds }) => equalPay(kinds)), macsAlone(whole)];
  return Math.min(...prices.map((one) => fpsBy(one, all)));
}

/** MACs and bytes of each rung; all on one where nodes are not told apart. */
function ladderOf({ ladder, macs, movedBytes = 0 }: PartFacts): readonly number[] {
  return ladder ?? [macs, movedBytes];
}

/** Undefined where only a search can tell. As quick as real frames of any stage were at best. */
function workOn(device: Device, whole: PartFacts, blocks: PlanProblem['facts']['blocks']): Work | undefined {
  const { all = 1, stages = [] } = device.correction ?? {};
  const times = slowdown(device) * Math.min(all, ...stages.map(({ factor }) => factor));
  if (device.profile !== undefined) {
    const ms = leastWorkMs(device.profile, blocks);
    return ms === undefined ? undefined : { kinds: [], measuredMs: ms * times, count: 0 };
  }
  const { macsPerSecond, memoryBytesPerSecond = DEFAULT_MEMORY_BYTES_PER_SECOND } = device;
  const run = times * (device.runMs ?? RUN_OVERHEAD_MS) + aroundMs(device);
  const nodes = times * (whole.nodes ?? 1) * (device.nodeMs ?? NODE_OVERHEAD_MS);
  const rungs = ladderOf(whole).map((amount, i) => (1000 * times * amount) / (i % 2 === 0 ? macsPerSecond : memoryBytesPerSecond));
  return { kinds: [run, nodes, ...rungs], measuredMs: undefined, count: 0 };
}

/** Of a rung only what limits this device has a price: a part takes as long as its MACs or as its bytes, not as both. */
function equalPay(kinds: readonly number[]): number[] {
  return kinds.map((ms, i) => {
    if (i < BEFORE_RUNGS) return ms;
    return i % 2 === 0 ? (ms >= (kinds[i + 1] ?? 0) ? ms : 0) : ms > (kinds[i - 1] ?? 0) ? ms : 0;
  });
}

function macsAlone(whole: PartFacts): number[] {
  return [0, 0, ...ladderOf(whole).map((amount, i) => (i % 2 === 0 ? amount : 0))];
}

function fpsBy(prices: readonly number[], works: readonly Work[]): number {
  const worth = prices.reduce((sum, price) => sum + price, 0);
  if (worth === 0) return Number.POSITIVE_INFINITY;
  const earned = ({ kinds, measuredMs }: Work): number =>
    measuredMs === undefined
      ? prices.reduce((most, price, i) => (price > 0 ? Math.max(most, price / (kinds[i] ?? 0)) : most), 0)
      : worth / measuredMs;
  return (1000 * works.reduce((sum, work) => sum + work.count * earned(work), 0)) / worth;
}
