import { describe, expect, it } from 'vitest';
import { computeMs } from './cost.js';
import type { Device, PartFacts } from './problem.js';
import { addTo, emptyLadder, ladderMs, mixed, rungOf } from './roofline.js';

const SPEED = { macs: 10e9, bytes: 2e9 };

/** `[MACs, bytes]` of each node. */
function ladderOf(nodes: readonly (readonly [number, number])[]): number[] {
  const ladder = emptyLadder();
  for (const [macs, bytes] of nodes) addTo(ladder, rungOf(macs, bytes), macs, bytes);
  return ladder;
}

describe('a ladder of nodes', () => {
  const convolution = [1e9, 1e7] as const;
  const connected = [1e8, 4e8] as const;

  it('takes each node as long as what limits it: weights that are read are not hidden behind a convolution', () => {
    expect(ladderMs(ladderOf([convolution, connected]), SPEED.macs, SPEED.bytes)).toBeCloseTo(100 + 200, 6);
    const part: PartFacts = { inputs: [], outputs: [], macs: 1.1e9, weightBytes: 0, activationBytes: 0, nodes: 2, movedBytes: 4.1e8 };
    const device: Device = {
      agent: 'a',
      macsPerSecond: SPEED.macs,
      memoryBytes: 0,
      memoryBytesPerSecond: SPEED.bytes,
      runMs: 1,
      nodeMs: 2,
    };
    const spec = { nodes: [0, 2], cut: 'whole' } as const;
    expect(computeMs(device, { ...part, ladder: ladderOf([convolution, connected]) }, spec, 1)).toBeCloseTo(305, 6);
    // Where nodes are not told apart, the larger of both sums.
    expect(computeMs(device, part, spec, 1)).toBeCloseTo(210, 6);
  });

  it('is exact for nodes of any kind but for those that share a rung with the speeds of the device, which are off by a third at most', () => {
    for (let exponent = -6; exponent < 8; exponent += 0.25) {
      const nodes = [convolution, [2 ** exponent * 1e6, 1e6], [2 ** (exponent + 0.2) * 1e6, 1e6], connected] as const;
      const exact = nodes.reduce((sum, [macs, bytes]) => sum + 1000 * Math.max(macs / SPEED.macs, bytes / SPEED.bytes), 0);
      const found = ladderMs(ladderOf(nodes), SPEED.macs, SPEED.bytes);
      expect(found).toBeLessThanOrEqual(exact + 1e-9);
      expect(found).toBeGreaterThan(exact - 0.34);
    }
  });

  it('adds up and lies on lines, rung by rung', () => {
    const [a, b] = [ladderOf([convolution]), ladderOf([connected])];
    expect(mixed(a, b, (x, y) => x + y)).toEqual(ladderOf([convolution, connected]));
    expect(rungOf(0, 100)).toBe(rungOf(1, 1e9));
  });
});
