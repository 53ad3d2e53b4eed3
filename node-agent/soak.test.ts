import { describe, expect, it } from 'vitest';
import { soak } from './test-soak.js';

/** For longer: `SOAK_SECONDS=300 SOAK_SEED=7 npx vitest run node-agent/soak`. */
const SECONDS = Number(process.env.SOAK_SECONDS ?? 0.7);

/** Numerical Recipes' linear congruence: the same turns for the same seed, as far as sockets let them. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('the data path, with cancels, breaking connections, epochs that change, and weights beside it', () => {
  it(
    'gives every input and output as it was sent, and each piece of memory to one owner',
    async () => {
      const figures = await soak({ seconds: SECONDS, random: randomOf(Number(process.env.SOAK_SEED ?? 5)) });
      if (process.env.SOAK_SECONDS !== undefined) console.log(figures);
      expect(figures.wrong).toEqual([]);
      // It did something.
      expect(Math.min(figures.frames, figures.adopted, figures.blobs, figures.cancelled)).toBeGreaterThan(0);
    },
    (SECONDS + 60) * 1000,
  );
});
