import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { expand, parseDeviceFile } from '../devices/device-file.js';
import { factsOf } from '../model-library.js';
import { chain } from './chain-model.js';
import { ENGINE_BYTES } from './cost.js';
import { type Assignment, assignments, drafted, musicalChair2018 } from './musical-chair-2018.js';
import { type Device, isRefusal, type ModelFacts, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

const MIB = 2 ** 20;
const GMAC = 1e9;

function problem(facts: ModelFacts, devices: readonly Device[], over: Partial<PlanProblem> = {}): PlanProblem {
  const links = { usual: { bytesPerSecond: 5e6, latencyMs: 2 }, between: new Map() };
  return { facts, devices, links, objective: 'throughput', inFlight: 0, ...over };
}

/** A network of the zoo on `count` devices of the profile pi3-2018; `weights`: how many of them a device can hold, MiB. */
function published(name: string, count: number, weights?: number): PlanProblem {
  const model = structureOf(drawZoo(name));
  const facts = factsOf(model);
  const { devices, links } = expand(parseDeviceFile(`devices: [{profile: pi3-2018, count: ${count}, name: pi}]`), model, facts);
  const memory = weights === undefined ? {} : { memoryBytes: weights * MIB + ENGINE_BYTES };
  return problem(
    facts,
    devices.map((device) => ({ ...device, ...memory })),
    { links },
  );
}

function given<T extends object>(found: T | PlanRefusal | undefined): T {
  if (found === undefined) throw new Error('nothing was found');
  if (isRefusal(found)) throw new Error(found.reason);
  return found;
}

/** `features x 7, fc1 / 2, fc2+fc3`: x data parallel, / model parallel. Blocks are named by their layers. */
function mapping({ facts }: PlanProblem, { tasks }: Assignment): string {
  const dense = facts.blocks.length - facts.blocks.filter((block) => block.weightBytes > 10 * MIB).length;
  return tasks
    .map(({ from, end, variant, devices }) => {
      const name = end <= dense ? 'features' : from < dense ? 'everything' : from === dense && end === dense + 1 ? 'fc1' : 'fc2+fc3';
      return variant === 'whole' ? name : `${name} ${variant === 'data' ? 'x' : '/'} ${devices}`;
    })
    .join(', ');
}

describe('VGG16 on Raspberry Pi 3 as published', () => {
  // fc1 and what follows count from block 14: all convolutions hold less than 10 MiB each.
  const on = published('vgg16', 10);
  const [, , , four, , , , eight, , ten] = assignments(on);

  it('has the published mapping for 11 devices: one records, seven convolve, two halve fc1, one has the rest', () => {
    expect(mapping(on, given(ten))).toBe('features x 7, fc1 / 2, fc2+fc3');
    const plan = given(drafted(on, given(ten)));
    expect(plan.stages.map(({ spec, agents }) => [spec.cut, agents.length, agents[0]?.length])).toEqual([
      ['whole', 7, 1],
      ['channels', 1, 2],
      ['whole', 1, 1],
    ]);
    // 7 replicas at 7.29 s cannot give the reported 1.11/s.
    expect(plan.estimate.fps).toBeGreaterThan(0.9);
    expect(plan.estimate.fps).toBeLessThan(7 / 7.29);
  });

  it('divides fc1 as soon as there are four devices, because it does not fit one', () => {
    expect(mapping(on, given(four))).toBe('features, fc1 / 2, fc2+fc3');
    expect(given(four).steps.join()).toContain('does not fit');
  });

  it('has not the published mapping for 9 devices: five data parallel convolvers instead of a pipeline of three groups of blocks', () => {
    // Published: block 1 | blocks 2 to 4 on three | block 5 | fc1 / 2 | fc2+fc3. All convolutions fit one device (56 MiB of weights), so step 1 makes one group of
    // them, and no step divides a group again.
    expect(mapping(on, given(eight))).toBe('features x 5, fc1 / 2, fc2+fc3');
    expect(given(drafted(on, given(eight))).estimate.fps).toBeCloseTo(5 / 7.29, 1);
  });

  it('has no plan for fewer devices than the layer that does not fit needs', () => {
    const [one, two, three] = assignments(on);
    for (const swaps of [one, two])
      expect(drafted(on, given(swaps))).toMatchObject({ refused: true, reason: expect.stringContaining('412 MiB') });
    expect(three).toMatchObject({ refused: true, reason: expect.stringContaining('504 MiB') });
  });
});

describe('AlexNet on Raspberry Pi 3 as published', () => {
  it('has not the published mapping with the published memory: all layers fit one device, so it is replicated', () => {
    const on = published('alexnet', 5);
    const [, , , four, five] = assignments(on);
    expect(given(four).tasks).toMatchObject([{ from: 0, end: 8, variant: 'data', devices: 4 }]);
    expect(given(five).tasks).toMatchObject([{ from: 0, end: 8, variant: 'data', devices: 5 }]);
  });

  it('has the published mappings for 5 and 6 devices where fc1 does not fit one: its 144 MiB would need a memory of less', () => {
    const on = published('alexnet', 5, 140);
    const [, , , four, five] = assignments(on);
    expect(mapping(on, given(four))).toBe('features, fc1 / 2, fc2+fc3');
    expect(mapping(on, given(five))).toBe('features x 2, fc1 / 2, fc2+fc3');
  });

  it('packs fc2 and fc3 together, and fc1 alone without halving it, where it fits but not with its neighbours', () => {
    const on = published('alexnet', 4, 150);
    const [, , three, four] = assignments(on);
    expect(mapping(on, given(three))).toBe('features, fc1, fc2+fc3');
    // The convolutions are the slowest; the published mapping halves fc1 first.
    expect(mapping(on, given(four))).toBe('features x 2, fc1, fc2+fc3');
  });
});

describe('the assignment', () => {
  const device = (agent: string, speed = 1, memoryMib = 1000): Device => ({
    agent,
    macsPerSecond: speed * GMAC,
    memoryBytes: memoryMib * MIB,
  });
  const blocks = [100, 90, 80, 30].map((mib) => ({ macs: GMAC, weightBytes: mib * MIB, rows: 1 }));

  it('merges the adjacent groups that need the least memory until each device has one, although that swaps: it is refused here', () => {
    const small = ['a', 'b', 'c', 'd'].map((name) => device(name, 1, 112 + 120));
    const on = problem(chain(blocks, 1), small);
    const groups = (found: Assignment | PlanRefusal | undefined) => given(found).tasks.map(({ from, end }) => [from, end]);
    const [one, two, three] = assignments(on);
    const greedy = [
      [0, 1],
      [1, 2],
      [2, 4],
    ];
    expect(groups(three)).toEqual(greedy);
    expect(isRefusal(drafted(on, given(three)))).toBe(false);
    expect(groups(two)).toEqual([
      [0, 2],
      [2, 4],
    ]);
    expect(groups(one)).toEqual([[0, 4]]);
    expect(drafted(on, given(two))).toMatchObject({ refused: true, reason: expect.stringContaining('not enough memory') });
  });

  it('takes every device for the slowest and every memory for the smallest, in the order given', () => {
    const uneven = [device('slow', 1, 400), device('quick', 4, 2000), device('middle', 2, 900)];
    const plan: PlanDraft = given(musicalChair2018(problem(chain(blocks, 1), uneven)));
    const sums = plan.stages.flatMap(({ agents }) => agents.flat());
    expect(sums.slice(0, 1)).toEqual(['slow']);
    expect(new Set(sums).size).toBe(3);
    expect(plan.why).toContain('taken as equal');
  });

  it('gives each device one task at most, leaves no layer out, and fits where it is not refused, whatever the model and the devices', () => {
    const block = fc.record({ macs: fc.integer({ min: 1, max: 5 }), mib: fc.integer({ min: 1, max: 200 }) });
    const one = fc.record({ speed: fc.integer({ min: 1, max: 8 }), mib: fc.integer({ min: 150, max: 600 }) });
    fc.assert(
      fc.property(fc.array(block, { minLength: 1, maxLength: 8 }), fc.array(one, { minLength: 1, maxLength: 9 }), (layers, boards) => {
        const facts = chain(layers.map(({ macs, mib }) => ({ macs: macs * GMAC, weightBytes: mib * MIB, rows: 4 })));
        const on = problem(
          facts,
          boards.map(({ speed, mib }, at) => device(`n${at}`, speed, mib)),
        );
        const found = assignments(on);
        expect(found).toHaveLength(boards.length);
        for (const [at, assignment] of found.entries()) {
          if (isRefusal(assignment)) continue;
          const { tasks, n } = assignment;
          expect(n).toBe(at + 1);
          expect(tasks.reduce((sum, task) => sum + task.devices, 0)).toBeLessThanOrEqual(n);
          expect(tasks.map(({ from }) => from)).toEqual([0, ...tasks.slice(0, -1).map(({ end }) => end)]);
          expect(tasks.at(-1)?.end).toBe(layers.length);
          const plan = drafted(on, assignment);
          if (isRefusal(plan)) continue;
          const agents = plan.stages.flatMap((stage) => stage.agents.flat());
          // A task of several stages keeps its agents; two tasks share none.
          expect(new Set(agents).size).toBeLessThanOrEqual(n);
          for (const { needBytes, haveBytes } of plan.estimate.memory) expect(needBytes).toBeLessThanOrEqual(haveBytes);
        }
      }),
      { numRuns: 150 },
    );
  });

  it('plans for a hundred layers on a thousand devices in a moment', () => {
    const facts = chain(Array.from({ length: 100 }, (_, i) => ({ macs: GMAC * (1 + (i % 5)), weightBytes: 20 * MIB, rows: 4 })));
    const devices = Array.from({ length: 1000 }, (_, i) => device(`n${i}`, 1 + (i % 3)));
    const plan = given(musicalChair2018(problem(facts, devices)));
    expect(new Set(plan.stages.flatMap(({ agents }) => agents.flat())).size).toBe(1000);
  });
});
