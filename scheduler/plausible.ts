/** What a device can be at all. What an agent says of itself beyond that is a defect of the agent or of its machine, and must reach no plan: it counts as unknown. Pure. */
import type { Hello } from '../broker/messages.js';

interface Bounds {
  readonly least: number;
  readonly most: number;
  readonly what: string;
}

type Figure =
  | 'probeMacsPerSecond'
  | 'probeBytesPerSecond'
  | 'probeSmallRunMs'
  | 'memoryBytes'
  | 'cpuLimit'
  | 'cpuPeriodMs'
  | 'cores'
  | 'hostCores'
  | 'engineThreads';

const CORES = { least: 1, most: 4096 };
/** 0 stands for unknown, or no limit, in all of them. */
const BOUNDS: Readonly<Record<Figure, Bounds>> = {
  probeMacsPerSecond: { least: 1e6, most: 1e15, what: 'MACs per second' },
  probeBytesPerSecond: { least: 1e6, most: 1e14, what: 'bytes of weights per second' },
  probeSmallRunMs: { least: 1e-3, most: 1e3, what: 'ms of a small run' },
  memoryBytes: { least: 2 ** 20, most: 2 ** 50, what: 'bytes of memory' },
  cpuLimit: { least: 1e-3, most: 4096, what: 'cores of its limit' },
  cpuPeriodMs: { least: 0.1, most: 10_000, what: 'ms of the period of its limit' },
  cores: { ...CORES, what: 'cores' },
  hostCores: { ...CORES, what: 'cores of its machine' },
  engineThreads: { ...CORES, what: 'engine threads' },
};

/** The hello with figures that can be, and what was left out, for people. */
export function plausible(hello: Hello): { readonly hello: Hello; readonly wrong: readonly string[] } {
  const bad = (Object.keys(BOUNDS) as Figure[]).filter((figure) => {
    const { least, most } = BOUNDS[figure];
    return hello[figure] !== 0 && !(hello[figure] >= least && hello[figure] <= most);
  });
  if (bad.length === 0) return { hello, wrong: [] };
  const known = Object.fromEntries(bad.map((figure) => [figure, 0]));
  return { hello: { ...hello, ...known }, wrong: bad.map((figure) => `${hello[figure]} ${BOUNDS[figure].what}`) };
}
