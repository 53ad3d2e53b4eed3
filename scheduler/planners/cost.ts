/**
 * What one part costs on one device, and one message on one link. Pure; ms and bytes throughout.
 *
 * Compute, without a profile:   run + nodes x node + sum over nodes of max(MACs / macsPerSecond, moved / memoryBytesPerSecond)
 *   A roofline with fixed costs: small, depthwise and fully connected layers are limited by the bytes that they move (weights read, activations written and read), not by
 *   their MACs, and each node and each run costs something however little it computes. Nodes are added up as roofline.ts says.
 * Compute, with a profile table:   measured times, put together as profile-table.ts says.
 * Transfer:   message + bytes / throughput on each end's link, + latency; and a fixed time and bytes / copy rate of CPU on each end (ends.ts).
 * Under a CPU quota:   all of these are times of long work. A quota is handed out in periods, so a device that has rested is up to one period ahead of them, and its messages
 *   take CPU from its runs: see `busy`.
 * A device on which other deployments hold seats gives each an even part of its CPU and link: what every one can count on when all are busy.
 */
import type { StageSpec } from '../../models/slicing/partition.js';
import type { CpuQuota, Device, Link, PartFacts } from './problem.js';
import { overlappedMs, profiledMs, profiledPeaks } from './profile-table.js';
import { ladderMs } from './roofline.js';

export { profiledMs } from './profile-table.js';

/**
 * What the start-up probe says of a small run on the machine that the times below were measured on, ms of CPU (0.033 to 0.038, once 0.07, of 20 starts under quotas of 0.09 core
 * and more beside other work). Where waking a thread is dear it says more than code like the agent's own takes: on a virtual machine of the same processor a small run took 0.09 (2.6
 * times), a frame of 1 KB 1.28 ms of CPU (1.67 times), and what agents of 18 plans took besides runs was 1.06 of the times below in the median, or half of
 * them, by predicted or measured runs (docs/benchmarks.md, "What a run and a message cost").
 */
export const SMALL_RUN_MS = 0.035;
/**
 * A run so short may be so many times slower by what else its machine does at that moment: within the one processors are taken for equal, beyond the other for what the probe
 * says. Three agents that started at once on two busy cores said up to 1.6 times what each says alone; of dear wake-ups see above.
 */
export const SMALL_RUN_NOISE = { within: 3, beyond: 5 };

/** Starting a run and collecting it, ms (`npm run bench -- messages`: 0.64 with its two messages). */
export const RUN_OVERHEAD_MS = 0.5;
/**
 * What an agent does around one run besides messages and their bytes, ms of CPU: between computations of tens of ms its own code and data are in no cache. Measured together with
 * COLD_MESSAGE_MS on a 2-core x86-64 machine as CPU time per frame of all threads but the engine's (docs/benchmarks.md, "What a run and a message cost"): 0.8 to 1.5.
 */
export const AROUND_RUN_MS = 1.2;
/** One node of a run, ms. */
export const NODE_OVERHEAD_MS = 0.01;
/** Memory-bound layers, bytes/s, where nobody measured: a Raspberry Pi 4 copies about this much. */
export const DEFAULT_MEMORY_BYTES_PER_SECOND = 2e9;
/** Encoding, sending and decoding one message, ms, besides its bytes. */
export const MESSAGE_OVERHEAD_MS = 0.2;
/** CPU of one message at one end besides its bytes, ms, one after the other (`npm run bench -- messages`: 0.04 to 0.07). */
export const MESSAGE_CPU_MS = 0.1;
/** The same of an agent that computes meanwhile: 0.37 to 0.55, told from the agents of bands with neighbours on both sides beside those with one. */
export const COLD_MESSAGE_MS = 0.4;
/** CPU of copying a message in or out, bytes/s (`npm run bench -- messages`: 1.6e9 in, 2.0e9 out). */
export const SERIALISE_BYTES_PER_SECOND = 2e9;
/** Encoding a box as float16 or uint8, or decoding it, besides its message: the CPU of so many copies of its raw bytes (`npm run bench -- codec`). */
export const CODED_COPIES = 2;
/**
 * Peak of loading over weights, where nobody measured. VGG16's slice of 528 MiB took a process of 120 MiB to 237 MiB (its weights are mapped, not copied; they count
 * in full, as a plan that reads them from the card for every frame does not fit), with prepacking to 1,024, and with `auto`, which tries both, to 1,400.
 */
export const LOAD_PEAK_FACTOR = 1;
/** A process with an engine and no model: 112 MiB seen. */
export const ENGINE_BYTES = 112 * 2 ** 20;

const LEAST_MS = 1e-6;

/** What else runs there takes its part. */
export function slowdown(device: Device | undefined): number {
  return 1 + (device?.otherDeployments ?? 0);
}

/** One run inside the engine. `share`: the part's fraction of the stage, 1 = all of it. */
export function computeMs(device: Device, part: PartFacts, spec: Pick<StageSpec, 'nodes' | 'cut'>, share: number): number {
  const { profile } = device;
  const measured =
    profile === undefined ? undefined : (profiledMs(profile, spec, share, part.macs) ?? overlappedMs(profile, spec, share, part.macs));
  // Never nothing, as a table may say of a pool: what replicas take is divided by it.
  return Math.max(LEAST_MS, measured ?? rooflineMs(device, part)) * slowdown(device) * corrected(device, spec);
}

/** How real frames of this very stage ran, or else of all stages, against the prediction. */
function corrected({ correction }: Device, { nodes, cut }: Pick<StageSpec, 'nodes' | 'cut'>): number {
  if (correction === undefined) return 1;
  const same = correction.stages.find((stage) => stage.cut === cut && stage.nodes[0] === nodes[0] && stage.nodes[1] === nodes[1]);
  return same?.factor ?? correction.all;
}

/** What a seat keeps its device's CPU for each frame: the run, and what the agent does around it. */
export function seatMs(device: Device, part: PartFacts, spec: Pick<StageSpec, 'nodes' | 'cut'>, share: number): number {
  return computeMs(device, part, spec, share) + aroundMs(device);
}

export function aroundMs(device: Device | undefined): number {
  return (device?.aroundMs ?? 0) * slowdown(device);
}

/** What one device has to do, one after the other, as its quota allows. Times of the frame, ms. */
export interface Busy {
  /** From when on long work would go on: under a quota up to one period before it is free in truth, as what was not used of a period counts. */
  readonly freeMs: number;
  readonly doneMs: number;
}

/**
 * Work of `ms` from `fromMs` on, on a device that was busy until `freeMs`. Without a quota it begins when the device is free. Under one it is done at the rate of the
 * quota, reckoned from up to one period ago if the device rested since then, and no sooner than at full speed: the virtual scheduling of a leaky bucket (ITU-T I.371) that
 * holds what one period gives.
 */
export function busy(quota: CpuQuota | undefined, freeMs: number, fromMs: number, ms: number): Busy {
  if (quota === undefined) {
    const doneMs = Math.max(fromMs, freeMs) + ms;
    return { freeMs: doneMs, doneMs };
  }
  const until = Math.max(fromMs - quota.periodMs, freeMs) + ms;
  return { freeMs: until, doneMs: Math.max(until, fromMs + ms * quota.fullSpeed) };
}

function rooflineMs(device: Device, part: PartFacts): number {
  const bytesPerSecond = device.memoryBytesPerSecond ?? DEFAULT_MEMORY_BYTES_PER_SECOND;
  const fixed = (device.runMs ?? RUN_OVERHEAD_MS) + (part.nodes ?? 1) * (device.nodeMs ?? NODE_OVERHEAD_MS);
  if (part.ladder !== undefined) return fixed + ladderMs(part.ladder, device.macsPerSecond, bytesPerSecond);
  return fixed + 1000 * Math.max(part.macs / device.macsPerSecond, (part.movedBytes ?? 0) / bytesPerSecond);
}

/** How long one message keeps the link of one end. */
export function linkMs(link: Link, bytes: number): number {
  return MESSAGE_OVERHEAD_MS + (bytes / link.bytesPerSecond) * 1000;
}

/**
 * What a seat takes of its device: `held` as long as it serves, `peak` besides while it loads or runs (slices of one agent load and run one after another, so of
 * its seats the largest counts). Loading takes what was measured, or else `loadPeakFactor` times the weights.
 */
export function seatBytes(
  device: Device | undefined,
  part: PartFacts,
  { spec, share }: { readonly spec: Pick<StageSpec, 'nodes' | 'cut'>; readonly share: number },
  waitingBytes: number,
  inFlight: number,
): { readonly held: number; readonly peak: number } {
  const measured = device?.profile === undefined ? undefined : profiledPeaks(device.profile, spec, share);
  const loading = measured?.loadPeakBytes ?? part.weightBytes * (device?.loadPeakFactor ?? LOAD_PEAK_FACTOR);
  const peak = Math.max(part.activationBytes, loading - part.weightBytes, (measured?.runPeakBytes ?? 0) - part.weightBytes);
  return { held: part.weightBytes + inFlight * waitingBytes, peak };
}
