import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Encoding } from '../broker/plan.js';
import { allocTensor, type Tensor } from '../broker/tensor.js';
import { Calibrated, calibrationFiles, MOST_CALIBRATION_FRAMES, RANDOM_INPUTS, readCalibration } from './calibration.js';
import type { LoadedModel } from './model-source.js';
import { draft, wholeSpec } from './planners/draft.js';
import { isRefusal, type PlanDraft } from './planners/problem.js';
import { scriptedSource } from './scripted-agent.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-calibration-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function written(files: readonly Uint8Array[]): string[] {
  return files.map((bytes, i) => {
    const at = path.join(folder, String(i));
    writeFileSync(at, bytes);
    return at;
  });
}

function ramp(dims: readonly number[], first: number): Tensor {
  const tensor = allocTensor('float32', dims);
  new Float32Array(tensor.bytes.buffer).forEach((_, i, all) => {
    all[i] = first + i;
  });
  return tensor;
}

const X = { name: 'x', dtype: 'float32', dims: [2, 3] } as const;
const Y = { name: 'y', dtype: 'float32', dims: [4] } as const;

describe('calibration files', () => {
  it('give back the frames they were made of, also of several inputs and of a nameless one', async () => {
    const frames = [
      { x: ramp([2, 3], 1), y: ramp([4], 10) },
      { x: ramp([2, 3], 5), y: ramp([4], 20) },
    ];
    const files = frames.flatMap((frame, sequence) => calibrationFiles(sequence, frame));
    expect(files).toHaveLength(4);
    expect(await readCalibration(written(files), [X, Y])).toEqual(frames);
    const nameless = written(calibrationFiles(0, { '': ramp([2, 3], 7) }));
    expect(await readCalibration(nameless, [X])).toEqual([{ x: ramp([2, 3], 7) }]);
  });

  it('are refused when they do not fit, miss an input, are too many, are no such file or none', async () => {
    const refused = (files: readonly Uint8Array[], wanted = [X, Y] as readonly (typeof X | typeof Y)[]) =>
      expect(readCalibration(written(files), wanted)).rejects.toMatchObject({ code: 'FRAME_INVALID' });
    await refused(calibrationFiles(0, { x: ramp([3, 2], 1), y: ramp([4], 1) }));
    await refused(calibrationFiles(0, { x: ramp([2, 3], 1) }));
    await refused(calibrationFiles(0, { '': ramp([2, 3], 1) }));
    await refused(calibrationFiles(0, { z: ramp([2, 3], 1) }), [X]);
    await refused([Buffer.from('no message')]);
    const many = Array.from({ length: MOST_CALIBRATION_FRAMES + 1 }, (_, i) => calibrationFiles(i, { x: ramp([2, 3], i) })).flat();
    await refused(many, [X]);
    await expect(readCalibration([path.join(folder, 'none')], [X])).rejects.toMatchObject({ code: 'FRAME_INVALID' });
  });
});

describe('measuring for one planning', () => {
  let models = 0;
  /** A model whose meter counts what it is asked. */
  async function model(options: { readonly varies?: boolean } = {}) {
    const loaded = await scriptedSource().load({ model: 'scripted', shapes: [], images: [] });
    const counts = { opened: 0, closed: 0, asked: 0, inputs: -1 };
    const metered: LoadedModel = {
      ...loaded,
      meter: async (_draft, inputs) => {
        counts.opened++;
        counts.inputs = inputs.length;
        return {
          inputs: inputs.length === 0 ? RANDOM_INPUTS : inputs.length,
          varies: options.varies ?? true,
          error: async (encodings) => {
            counts.asked++;
            return encodings.filter((encoding) => encoding === 'uint8').length * 0.01;
          },
          dispose: async () => {
            counts.closed++;
          },
        };
      },
    };
    const stages = [{ spec: wholeSpec(loaded.facts), agents: [['a']] }];
    const devices = [{ agent: 'a', macsPerSecond: 1e9, memoryBytes: 0 }];
    const links = { usual: { bytesPerSecond: 1e6, latencyMs: 1 }, between: new Map() };
    const plan = draft({ facts: loaded.facts, devices, links, objective: 'latency', inFlight: 0 }, 'test', stages);
    if (isRefusal(plan)) throw new Error(plan.reason);
    return { metered: { ...metered, sha256: `model ${++models}` }, counts, plan };
  }
  const begin = (metered: LoadedModel, hindered = '') =>
    new Calibrated(metered, { identity: metered.sha256, frames: undefined, count: 0, hindered, onStart: () => undefined });
  const uint8 = (plan: PlanDraft): Encoding[] => plan.cut.wires.map(() => 'uint8');

  it('opens the slices once, remembers errors from plan to plan, and closes what it opened', async () => {
    const { metered, counts, plan } = await model();
    const first = begin(metered);
    const error = await first.error(plan, uint8(plan), 1);
    expect(error).toBeCloseTo(0.02, 9);
    expect(await first.error(plan, uint8(plan), 1)).toBe(error);
    await first.close();
    const second = begin(metered);
    expect(await second.error(plan, uint8(plan), 1)).toBe(error);
    await second.close();
    expect(counts).toEqual({ opened: 1, closed: 1, asked: 1, inputs: 0 });
  });

  it('measures nothing while it is hindered, but knows what was measured before', async () => {
    const { metered, counts, plan } = await model();
    const hindered = begin(metered, 'no time');
    expect(await hindered.error(plan, uint8(plan), 1)).toBe(Number.POSITIVE_INFINITY);
    expect(hindered.missed).toBe(true);
    expect(counts.opened).toBe(0);
    const free = begin(metered);
    await free.error(plan, uint8(plan), 1);
    await free.close();
    const again = begin(metered, 'no time');
    expect(await again.error(plan, uint8(plan), 1)).toBeCloseTo(0.02, 9);
    expect(again.missed).toBe(false);
  });

  it('believes no error of inputs that all give the same output', async () => {
    const { metered, plan } = await model({ varies: false });
    const measuring = begin(metered);
    expect(await measuring.error(plan, uint8(plan), 1)).toBe(Number.POSITIVE_INFINITY);
    expect(measuring.hindered).toContain('same output for all');
    await measuring.close();
  });
});
