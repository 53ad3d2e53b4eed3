import { describe, expect, it } from 'vitest';
import { allocTensor } from '../../broker/tensor.js';
import { createFakeEngine, type FakeGraph } from './fake.js';

const x = { name: 'x', dtype: 'float32' as const, dims: [2] };
const y = { ...x, name: 'y' };
const graph = (more: Partial<FakeGraph> = {}): FakeGraph => ({ inputs: [x], outputs: [y], ...more });

describe('the fake engine', () => {
  it('computes what the script says and counts the calls', async () => {
    const calls: number[] = [];
    const engine = createFakeEngine({
      graph: () =>
        graph({
          run: (inputs, call) => {
            calls.push(call);
            return { y: inputs.x ?? allocTensor('float32', [2]) };
          },
        }),
    });
    const session = await engine.load('a.onnx');
    await session.warmUp();
    const given = allocTensor('float32', [2]);
    given.bytes.fill(7);
    expect((await session.run({ x: given })).outputs.y).toEqual(given);
    expect(calls).toEqual([0, 1]);
    expect(engine.loaded).toEqual(['a.onnx']);
    await session.dispose();
    expect(engine.openSessions).toBe(0);
  });

  it('checks inputs as the real engine does', async () => {
    const session = await createFakeEngine({ graph: () => graph() }).load('a.onnx');
    await expect(session.run({ x: allocTensor('float32', [3]) })).rejects.toMatchObject({ code: 'ENGINE_INPUT_INVALID' });
  });

  it('fails what is pending when it crashes', async () => {
    const engine = createFakeEngine({ graph: () => graph({ delayMs: 60_000 }) });
    const session = await engine.load('a.onnx');
    const run = session.run({ x: allocTensor('float32', [2]) });
    const failed = expect(run).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
    await Promise.resolve();
    engine.crash();
    await failed;
    await expect(engine.load('b.onnx')).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
    await engine.dispose();
  });
});
