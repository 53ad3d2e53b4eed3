/** What a benchmark gives: figures with their spread, target and raw samples. Pure. */

export interface Target {
  readonly text: string;
  readonly isMet: (value: number) => boolean;
}

export const atLeast = (bound: number): Target => ({ text: `>= ${bound}`, isMet: (value) => value >= bound });
export const atMost = (bound: number): Target => ({ text: `<= ${bound}`, isMet: (value) => value <= bound });
export const below = (bound: number): Target => ({ text: `< ${bound}`, isMet: (value) => value < bound });

export interface Figure {
  readonly figure: string;
  /** Median of the samples, or their largest where the name says so. */
  readonly value: number;
  /** Their quartiles. */
  readonly spread: readonly [number, number];
  /** `x` = a ratio. */
  readonly unit: string;
  /** '' = none: the figure explains another one. */
  readonly target: string;
  readonly met: boolean | null;
  readonly samples: readonly number[];
  /** What kept it from being better: the busiest resource while it was measured. Absent = not watched. */
  readonly limit?: string;
  /** Other values of the same thing in the same unit, by what they are: `{ predicted: 12 }`. */
  readonly beside?: Readonly<Record<string, number>>;
  /** For plots and those who look closely: not in the table. */
  readonly detail?: boolean;
  /** What a prediction beside it stood on; kept with the raw samples only. */
  readonly basis?: object;
}

/** The `q` quantile, linear between samples; NaN without samples. */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN];
  return low + (high - low) * (at - Math.floor(at));
}

export const median = (samples: readonly number[]): number => quantile(samples, 0.5);

export interface FigureOptions {
  /** How samples become one value; default: their median. */
  readonly value?: (samples: readonly number[]) => number;
  readonly limit?: string;
  readonly beside?: Readonly<Record<string, number>>;
  readonly detail?: boolean;
  readonly basis?: object;
}

export function figure(
  name: string,
  unit: string,
  samples: readonly number[],
  target?: Target,
  { value: summary = median, limit, beside, detail, basis }: FigureOptions = {},
): Figure {
  const value = summary(samples);
  return {
    figure: name,
    value,
    spread: [quantile(samples, 0.25), quantile(samples, 0.75)],
    unit,
    target: target?.text ?? '',
    // A figure that could not be measured is not met.
    met: target === undefined ? null : Number.isFinite(value) && target.isMet(value),
    samples,
    ...(limit === undefined ? {} : { limit }),
    ...(beside === undefined ? {} : { beside }),
    ...(detail === undefined ? {} : { detail }),
    ...(basis === undefined ? {} : { basis }),
  };
}

/** The largest sample; NaN without samples or when one is missing. */
export const largest = (samples: readonly number[]): number => (samples.length === 0 ? Number.NaN : Math.max(...samples));
export const smallest = (samples: readonly number[]): number => (samples.length === 0 ? Number.NaN : Math.min(...samples));

/**
 * Measures two things in turn, the first one first in every other pair, so that what drifts meets both alike.
 * Returns the samples of both; ratios are to be made pair by pair.
 */
export async function interleaved<A, B>(pairs: number, a: () => Promise<A>, b: () => Promise<B>): Promise<{ a: A; b: B }[]> {
  const samples: { a: A; b: B }[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    if (pair % 2 === 0) {
      const first = await a();
      samples.push({ a: first, b: await b() });
    } else {
      const first = await b();
      samples.push({ a: await a(), b: first });
    }
  }
  return samples;
}

/** The same for any number of things: each round begins one further. `samples[thing][round]`. */
export async function inTurn<T>(rounds: number, things: readonly (() => Promise<T>)[]): Promise<T[][]> {
  const samples: T[][] = things.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (let k = 0; k < things.length; k++) {
      const i = (k + round) % things.length;
      const thing = things[i];
      if (thing !== undefined) samples[i]?.push(await thing());
    }
  }
  return samples;
}
