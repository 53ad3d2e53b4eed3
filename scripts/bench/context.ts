/** How a benchmark is run: which of its cases, for how long, and what is kept when one of them fails. */
import { errorLine } from '../output.js';
import type { BenchContext, Case } from './bench.js';
import type { Figure } from './figures.js';

export interface ContextOptions extends Pick<BenchContext, 'quick' | 'profile' | 'note' | 'cli' | 'models'> {
  /** Each names cases by words that must all be in the case's name; empty = all cases. */
  readonly only: readonly string[];
  /** No case begins later than this after the start. */
  readonly withinMs: number;
  /** Monotonic, milliseconds. */
  readonly now?: () => number;
}

/** Whether every word of one of `only` is a word of `name`. Pure. */
export function isWanted(name: string, only: readonly string[]): boolean {
  const wordsOf = (text: string): string[] =>
    text
      .toLowerCase()
      .split(/[\s,;()]+/)
      .filter(Boolean);
  const words = new Set(wordsOf(name));
  const all = (text: string): boolean => wordsOf(text).every((word) => words.has(word));
  return only.length === 0 || only.some(all);
}

export interface Collected {
  readonly context: BenchContext;
  /** Of the cases so far; grows while the benchmark runs. */
  readonly figures: Figure[];
  /** Of all these cases together. */
  readonly summary: () => Figure[];
  readonly troubles: string[];
  readonly conditions: Record<string, unknown>;
  /** Names of all cases, wanted or not. */
  readonly names: string[];
}

export function collect(options: ContextOptions): Collected {
  const { only, withinMs, now = () => performance.now(), ...rest } = options;
  const startedAt = now();
  const figures: Figure[] = [];
  const troubles: string[] = [];
  const conditions: Record<string, unknown> = {};
  const names: string[] = [];
  const wants = (name: string): boolean => {
    names.push(name);
    return isWanted(name, only);
  };
  const trouble = (line: string): void => {
    troubles.push(line);
    rest.note(`not measured: ${line}`);
  };
  const cases = async (list: readonly Case[]): Promise<void> => {
    for (const { name, run } of list) {
      if (!wants(name)) continue;
      if (now() - startedAt > withinMs) {
        trouble(`${name}: the time was over`);
        continue;
      }
      rest.note(`${name} ...`);
      try {
        figures.push(...(await run()));
      } catch (error) {
        trouble(`${name}: ${errorLine(error)}`);
      }
    }
  };
  const summaries: ((cases: readonly Figure[]) => readonly Figure[])[] = [];
  const depends = (more: object): void => void Object.assign(conditions, more);
  return {
    context: { ...rest, wants, trouble, cases, summary: (make) => void summaries.push(make), depends },
    ...{ figures, troubles, conditions, names },
    summary: () => summaries.flatMap((make) => make(figures)),
  };
}
