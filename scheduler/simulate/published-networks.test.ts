import { describe, expect, it } from 'vitest';
import { isRefusal } from '../planners/problem.js';
import { ACTION, ALEXNET, VGG16 } from './published-networks.js';
import { factsOfTasks } from './tasks.js';

describe('published networks', () => {
  it('have the sizes that were published', () => {
    const weights = (model: typeof VGG16): number =>
      [...model.weights.values()].reduce((sum, { dims }) => sum + dims.reduce((product, dim) => product * dim, 1), 0);
    expect(weights(VGG16)).toBe(138_357_544);
    // 6 x 6 x 128 values reach the first fully connected layer.
    expect(ALEXNET.nodes.find(({ op }) => op === 'Gemm')?.inputs.map((name) => ALEXNET.tensors.get(name)?.dims)[0]).toEqual([1, 4608]);
    const stream = ACTION.tasks[0];
    expect(stream?.weightBytes).toBe(4 * 256 * (25 * 3 + 2 * 9 * 256));
    const dense = ACTION.tasks.slice(3).reduce((sum, task) => sum + task.weightBytes, 0);
    // "About 1.5 GB" in a runtime that needs three times the weights.
    expect((3 * dense) / 1.5e9).toBeCloseTo(1, 0);
  });

  it('of tasks are cut like models: every value of every part is brought once', () => {
    const facts = factsOfTasks(ACTION);
    const cut = facts.cut([
      { nodes: [0, 1], cut: 'whole', shares: [1] },
      { nodes: [1, 3], cut: 'whole', shares: [1] },
      { nodes: [3, 4], cut: 'channels', shares: [1, 1, 1] },
      { nodes: [4, 6], cut: 'whole', shares: [1] },
    ]);
    if (isRefusal(cut)) throw new Error(cut.reason);
    const into = (stage: number, part: number): number =>
      cut.wires
        .filter((wire) => wire.toStage === stage && wire.toPart === part)
        .reduce((sum, { box }) => sum + (box.end[0] ?? 0) - (box.start[0] ?? 0), 0);
    // The spatial stream's 256 values go past the stage of the temporal one.
    expect(into(1, 0)).toBe(256 + 16 * 12 * 20);
    expect([0, 1, 2].map((part) => into(2, part))).toEqual([7680, 7680, 7680]);
    expect(into(3, 0)).toBe(8192);
    expect(isRefusal(facts.cut([{ nodes: [0, 6], cut: 'channels', shares: [1, 1] }]))).toBe(true);
  });
});
