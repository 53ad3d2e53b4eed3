import { describe, expect, it } from 'vitest';
import type { Encoding } from '../broker/plan.js';
import { auto } from './planners/auto.js';
import { chain } from './planners/chain-model.js';
import type { Device, Links, PlanDraft, PlanProblem } from './planners/problem.js';
import { boundariesOf, type Measuring, planWithPrecision, withFasterLinks } from './precision.js';

const device = (agent: string): Device => ({ agent, macsPerSecond: 1e9, memoryBytes: 8e9 });
const link = (bytesPerSecond: number): Links => ({ usual: { bytesPerSecond, latencyMs: 1 }, between: new Map() });

/** Six equal blocks on three equal devices, a frame is 1.2 s of computing; a boundary has 0.5 MB. */
function problem(bytesPerSecond: number, more: Partial<PlanProblem> = {}): PlanProblem {
  const facts = chain(new Array(6).fill({ macs: 2e8, weightBytes: 1e6, rows: 512 }), 512);
  const devices = ['a', 'b', 'c'].map(device);
  return { facts, devices, links: link(bytesPerSecond), objective: 'throughput', inFlight: 0, ...more };
}

/** An error for each encoded wire; counts what was asked. */
function measuring(perWire: Readonly<Record<Encoding, number>>, more: Partial<Measuring> = {}) {
  const asked: { stages: number; encodings: readonly Encoding[] }[] = [];
  const error = async (plan: PlanDraft, encodings: readonly Encoding[]): Promise<number> => {
    asked.push({ stages: plan.stages.length, encodings });
    return encodings.reduce((sum, encoding) => sum + perWire[encoding], 0);
  };
  return { asked, measuring: { error, inputs: 4, random: true, hindered: '', ...more } };
}

const SMALL = { raw: 0, float16: 0.0001, uint8: 0.001 };
const encodingsOf = (plan: PlanDraft): Encoding[] => plan.cut.wires.map((wire) => wire.encoding);
const bytesOf = (plan: PlanDraft): number => plan.estimate.links.reduce((sum, row) => sum + row.bytesPerFrame, 0);

describe('a plan with an allowed error', () => {
  it('encodes wires of slow links, is predicted better by what they save, and says what it measured', async () => {
    const asked = { planner: auto, problem: problem(3e5) };
    const raw = auto(asked.problem);
    const plan = await planWithPrecision('net', asked, 0.05, measuring(SMALL).measuring);
    if ('refused' in raw) throw new Error(raw.reason);
    expect(encodingsOf(plan)).toContain('uint8');
    expect(plan.estimate.fps).toBeGreaterThan(1.05 * raw.estimate.fps);
    const encoded = encodingsOf(plan).filter((encoding) => encoding === 'uint8').length;
    expect(plan.precision).toMatchObject({ maxError: 0.05, inputs: 4, random: true });
    expect(plan.precision?.error).toBeCloseTo(0.001 * encoded, 9);
    expect(plan.precision?.why).toContain('made-up inputs');
    for (const row of plan.precision?.rows ?? []) {
      if (row.encoding === 'uint8') expect(row.bytesPerFrame).toBe(row.rawBytesPerFrame / 4);
    }
    expect(plan.why.split('\n')).toHaveLength(3);
    expect(plan.why).toContain('raw wires');
  });

  it('encodes between the stages of a pipeline that memory demands', async () => {
    const heavy = problem(8e5);
    const facts = chain(new Array(6).fill({ macs: 2e8, weightBytes: 100e6, rows: 512 }), 512);
    const asked = { planner: auto, problem: { ...heavy, facts, devices: heavy.devices.map((one) => ({ ...one, memoryBytes: 400e6 })) } };
    const raw = auto(asked.problem);
    if ('refused' in raw) throw new Error(raw.reason);
    const plan = await planWithPrecision('net', asked, 0.05, measuring(SMALL).measuring);
    expect(plan.stages.length).toBeGreaterThan(1);
    expect(plan.estimate.fps).toBeGreaterThan(1.3 * raw.estimate.fps);
  });

  it('changes nothing and measures nothing where links do not limit the plan', async () => {
    const asked = { planner: auto, problem: problem(1e9) };
    const { asked: questions, measuring: meter } = measuring(SMALL);
    const plan = await planWithPrecision('net', asked, 0.05, meter);
    expect(encodingsOf(plan).every((encoding) => encoding === 'raw')).toBe(true);
    expect(questions).toHaveLength(0);
    expect(plan.precision?.why).toContain('no link is what limits the plan');
    expect(plan.precision?.error).toBe(0);
  });

  it('stays raw, and says what was measured, when every encoding exceeds the budget', async () => {
    const asked = { planner: auto, problem: problem(3e5) };
    const plan = await planWithPrecision('net', asked, 0.05, measuring({ raw: 0, float16: 0.06, uint8: 0.3 }).measuring);
    expect(encodingsOf(plan).every((encoding) => encoding === 'raw')).toBe(true);
    expect(plan.precision?.why).toMatch(/all wires are raw: .*(uint8|float16) alone gives 0.\d+/);
  });

  it('takes float16 where uint8 exceeds the budget', async () => {
    const asked = { planner: auto, problem: problem(3e5) };
    const plan = await planWithPrecision('net', asked, 0.05, measuring({ raw: 0, float16: 0.0005, uint8: 0.3 }).measuring);
    expect(encodingsOf(plan)).toContain('float16');
    expect(encodingsOf(plan)).not.toContain('uint8');
    expect(plan.precision?.rows.some((row) => row.why.startsWith('uint8 alone gives 0.3'))).toBe(true);
    expect(plan.why).toContain('a larger --max-error');
  });

  it('is raw when nothing can be measured now, with the reason', async () => {
    const hindered = 'not measured while frames wait after a loss';
    const { measuring: meter } = measuring({ raw: 0, float16: Number.POSITIVE_INFINITY, uint8: Number.POSITIVE_INFINITY }, { hindered });
    const plan = await planWithPrecision('net', { planner: auto, problem: problem(8e5) }, 0.05, meter);
    expect(encodingsOf(plan).every((encoding) => encoding === 'raw')).toBe(true);
    expect(plan.precision?.why).toBe(`all wires are raw: ${hindered}`);
    expect(plan.precision?.rows.map((row) => row.why)).toEqual(plan.precision?.rows.map(() => ''));
  });

  it('meets a bound on latency that raw wires cannot, and refuses one that encoded wires cannot meet either', async () => {
    const loose = problem(8e5);
    const single = auto({ ...loose, objective: 'latency' });
    if ('refused' in single) throw new Error(single.reason);
    const raw = single.estimate.latencyMs;
    const encoded = await planWithPrecision(
      'net',
      { planner: auto, problem: { ...loose, objective: 'latency' } },
      0.05,
      measuring(SMALL).measuring,
    );
    expect(encoded.estimate.latencyMs).toBeLessThan(raw * 0.95);
    const between = (encoded.estimate.latencyMs + raw) / 2;
    const plan = await planWithPrecision(
      'net',
      { planner: auto, problem: { ...loose, maxLatencyMs: between } },
      0.05,
      measuring(SMALL).measuring,
    );
    expect(plan.estimate.latencyMs).toBeLessThanOrEqual(between);
    expect(plan.why).toContain('with raw wires no plan is possible');
    await expect(
      planWithPrecision('net', { planner: auto, problem: { ...loose, maxLatencyMs: 1 } }, 0.05, measuring(SMALL).measuring),
    ).rejects.toMatchObject({ code: 'PLAN_NOT_POSSIBLE' });
  });

  it('takes back what is for nothing once another wire may not be short', async () => {
    // 1 MB goes in, 0.5 MB from stage 0 to 1 and 0.4 MB from 1 to 2; each device has room for two of six blocks.
    const rows = [512, 512, 410, 410, 64, 64];
    const facts = chain(
      rows.map((out) => ({ macs: 2e7, weightBytes: 100e6, rows: out })),
      1024,
    );
    const tight = problem(1e6, { facts, devices: ['a', 'b', 'c'].map((name) => ({ ...device(name), memoryBytes: 400e6 })) });
    const error = async (plan: PlanDraft, encodings: readonly Encoding[]): Promise<number> =>
      plan.cut.wires.some((wire, w) => wire.fromStage === 0 && encodings[w] !== 'raw') ? 1 : 0.001;
    const { measuring: meter } = measuring(SMALL, { error });
    const plan = await planWithPrecision('net', { planner: auto, problem: tight }, 0.05, meter);
    const rowOf = (fromStage: number) => plan.precision?.rows.find((row) => row.fromStage === fromStage);
    expect(plan.stages).toHaveLength(3);
    expect(rowOf(-1)?.encoding).not.toBe('raw');
    expect(rowOf(0)).toMatchObject({ encoding: 'raw', bytesPerFrame: 512 * 256 * 4 });
    expect(rowOf(1)).toMatchObject({ encoding: 'raw', why: 'another link limits the plan, which the budget held back' });
    expect(plan.cut.wires.every((wire) => (wire.encoding === 'raw') === (wire.fromStage !== -1))).toBe(true);
  });

  it('gives no more accuracy away than the links need', async () => {
    const asked = { planner: auto, problem: problem(3e5) };
    const plan = await planWithPrecision('net', asked, 1, measuring(SMALL).measuring);
    // Raw again what is encoded: the plan must suffer, or it was given away for nothing.
    const most = bytesOf(plan);
    expect(most).toBeLessThan(plan.estimate.links.reduce((sum, row) => sum + row.rawBytesPerFrame, 0));
    for (const row of plan.precision?.rows ?? []) expect(['', 'its link does not limit the plan']).toContain(row.why);
  });
});

describe('wires that can be encoded', () => {
  it('are those between agents and the dispatcher, not those that stay on an agent', () => {
    const { facts } = problem(1e9);
    const specs = [
      { nodes: [0, 2], cut: 'whole', shares: [1] },
      { nodes: [2, 4], cut: 'whole', shares: [1] },
      { nodes: [4, 6], cut: 'whole', shares: [1] },
    ] as const;
    const cut = facts.cut(specs);
    if ('refused' in cut) throw new Error(cut.reason);
    const on = (...agents: string[]) => specs.map((spec, s) => ({ spec, agents: [[agents[s] ?? '']] }));
    const ends = (agents: string[]) => boundariesOf(cut, on(...agents)).map(({ fromStage, toStage }) => [fromStage, toStage]);
    expect(ends(['a', 'b', 'c'])).toEqual([
      [-1, 0],
      [0, 1],
      [1, 2],
      [2, -2],
    ]);
    expect(ends(['a', 'a', 'b'])).toEqual([
      [-1, 0],
      [1, 2],
      [2, -2],
    ]);
    // On some routes it crosses.
    const replicated = on('a', 'a', 'a').map((stage, s) => (s === 0 ? { ...stage, agents: [['a'], ['b']] } : stage));
    expect(boundariesOf(cut, replicated).map(({ fromStage }) => fromStage)).toEqual([-1, 0, 2]);
  });
});

describe('links as fast as short messages make them', () => {
  it('are faster at every end that is known', () => {
    const access = { upBytesPerSecond: 1, downBytesPerSecond: 2, latencyMs: 3 };
    const slow = problem(10, {
      devices: [{ ...device('a'), link: access }, device('b')],
      links: { ...link(10), gateway: access, sharedBytesPerSecond: 5, between: new Map([['a>b', { bytesPerSecond: 7, latencyMs: 1 }]]) },
    });
    const fast = withFasterLinks(slow, 4);
    const faster = { upBytesPerSecond: 4, downBytesPerSecond: 8, latencyMs: 3 };
    expect(fast.links).toMatchObject({ usual: { bytesPerSecond: 40 }, gateway: faster, sharedBytesPerSecond: 20 });
    expect(fast.links.between.get('a>b')?.bytesPerSecond).toBe(28);
    expect(fast.devices[0]?.link).toEqual(faster);
    expect(fast.devices[1]?.link).toBeUndefined();
  });
});
