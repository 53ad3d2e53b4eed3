/** Splitting a row of loads into consecutive groups. */

/**
 * Splits `loads` into `shares.length` consecutive, non-empty groups so that the largest (group's load / its share) is smallest. Returns the start of
 * each group. Groups are fewer when there are fewer loads than shares. Shares of 0 get no group.
 */
export function balancedStarts(loads: readonly number[], shares: readonly number[]): number[] {
  const wanted = shares.filter((s) => s > 0).slice(0, loads.length);
  const sums = [0];
  for (const load of loads) sums.push((sums.at(-1) ?? 0) + load);
  const total = sums.at(-1) ?? 0;
  const shareSum = wanted.reduce((a, b) => a + b, 0);
  const n = loads.length;
  // best[j]: the smallest [largest relative load, sum of squares] of splitting the first j loads into the groups so far; squares spread what is below the largest.
  let best: { max: number; squares: number; starts: readonly number[] }[] = [{ max: 0, squares: 0, starts: [] }];
  wanted.forEach((share, g) => {
    const next: typeof best = [];
    const left = wanted.length - g - 1;
    for (let j = g + 1; j <= n - left; j++) {
      for (let i = g; i < j; i++) {
        const before = best[i];
        if (before === undefined) continue;
        const load = total === 0 ? (j - i) / n : ((sums[j] ?? 0) - (sums[i] ?? 0)) / total;
        const relative = (load * shareSum) / share;
        const max = Math.max(before.max, relative);
        const squares = before.squares + relative * relative;
        const known = next[j];
        if (known === undefined || max < known.max - 1e-12 || (max <= known.max + 1e-12 && squares < known.squares - 1e-12)) {
          next[j] = { max, squares, starts: [...before.starts, i] };
        }
      }
    }
    best = next;
  });
  return [...(best[n]?.starts ?? [0])];
}
