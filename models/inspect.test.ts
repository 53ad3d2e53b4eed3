import { describe, expect, it } from 'vitest';
import { inspectModel } from './inspect.js';
import type { Model, ModelNode } from './model.js';

/** A chain of `count` activations, with a product before the last of them. */
function chain(count: number): Model {
  const dims = [1, 4, 8, 8];
  const names = Array.from({ length: count + 2 }, (_, i) => `t${i}`);
  const nodes = names.slice(1).map((name, i): ModelNode => {
    const isProduct = i === count - 1;
    const inputs = isProduct ? [`t${i}`, 'w'] : [`t${i}`];
    return { op: isProduct ? 'MatMul' : 'Relu', domain: '', name, inputs, outputs: [name], attributes: new Map(), captured: [] };
  });
  const info = (name: string) => ({ name, dtype: 'float32' as const, dims });
  return {
    sha256: '',
    path: 'chain.onnx',
    irVersion: 8,
    opsets: [{ domain: '', version: 17 }],
    nodes,
    tensors: new Map(names.map((name) => [name, info(name)])),
    weights: new Map([['w', { name: 'w', dtype: 'float32', dims: [8, 8], bytes: { kind: 'inline', bytes: new Uint8Array(256) } }]]),
    inputs: [info('t0')],
    outputs: [info(names.at(-1) ?? '')],
    functions: [],
  };
}

describe('inspecting a model', () => {
  it('says what each cut covers of a chain of thousands of nodes, in seconds', () => {
    const [block, ...more] = inspectModel(chain(3000)).blocks;
    expect(more).toEqual([]);
    expect(block?.cuts).toEqual({ rows: 1, columns: 1, channels: 1, inputs: 1, pair: 0 });
    expect(block?.refusals.pair).toContain('needs all of');
  }, 20_000);
});
