import { describe, expect, it } from 'vitest';
import { boxDims, elementCount } from '../broker/tensor.js';
import { drawZoo } from '../models/zoo/index.js';
import { structureOf } from '../models/zoo/structure.js';
import { DEPLOY_DEFAULTS } from './deploy-defaults.js';
import { expand, parseDeviceFile } from './devices/device-file.js';
import { factsOf } from './model-facts.js';
import { parsePlanFile, planFileText, stagesOf, withPlanFile } from './plan-file.js';
import { auto } from './planners/auto.js';
import { filed } from './planners/filed.js';
import { manual } from './planners/manual.js';
import { isRefusal, type PlanDraft, type Planner, type PlanProblem } from './planners/problem.js';
import { checkRequest } from './planning.js';
import { redundancyOf } from './redundancy.js';
import { repair } from './repair.js';
import { hasRoute } from './router.js';
import type { Incident } from './simulate/options.js';
import { simulatePlan } from './simulate/simulate.js';

const model = structureOf(drawZoo('alexnet'));
const facts = factsOf(model);

function problem(devices: string, over: Partial<PlanProblem> = {}): PlanProblem {
  const on = expand(parseDeviceFile(`devices: [${devices}]`), model, facts);
  return { facts, ...on, objective: 'latency', inFlight: 0, redundancy: { otherwise: 'refuse' }, ...over };
}

function planned(planner: Planner, on: PlanProblem): PlanDraft {
  const plan = planner(on);
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

const byHand = (parts: number, shares: readonly number[] = []) => ({ manual: { kind: 'channels', parts, shares } });

describe('a plan with redundancy', () => {
  it('codes AlexNet whole but for what merges at its end, and seats each part of a stage on an agent of its own', () => {
    const plan = planned(auto, problem('{profile: pi4, count: 6}'));
    const coded = plan.stages.filter(({ spec }) => spec.redundancy === 1);
    expect(coded).toHaveLength(8);
    for (const { spec, agents } of coded) {
      expect(agents[0]).toHaveLength(spec.shares.length + 1);
      expect(new Set(agents[0]).size).toBe(spec.shares.length + 1);
    }
    expect(plan.stages.length - coded.length).toBe(1);
    const routed = plan.stages.map(({ spec, agents }) => ({ agents, redundancy: spec.redundancy ?? 0 }));
    const report = redundancyOf(plan);
    for (const agent of report?.covered ?? []) expect(hasRoute(routed, (other) => other === agent)).toBe(true);
    for (const agent of report?.exposed ?? []) expect(hasRoute(routed, (other) => other === agent)).toBe(false);
    expect(report?.exposed).toHaveLength(1);
    expect(report?.why).toMatch(/may be lost without a frame noticing/);
    expect(report?.why).toMatch(/ordinary loss/);
  });

  it('gives the longest part and the parity to the fastest, and says what they cost: 1/N more computing and their bytes', () => {
    const plan = planned(manual, problem('{profile: pi4, count: 3}, {profile: pi5}', byHand(3)));
    const report = redundancyOf(plan);
    const fc = report?.rows.at(-1);
    expect(fc?.parts).toBe(3);
    expect((fc?.parityMacs ?? 0) / (fc?.macs ?? 1)).toBeCloseTo(1 / 3, 2);
    expect(fc?.parityBytes).toBeGreaterThan(0);
    const fastest = plan.stages.at(-1)?.agents[0]?.[0];
    expect(new Set(report?.rows.flatMap(({ agents }) => agents))).toEqual(new Set([fastest]));
    const plain = planned(manual, { ...problem('{profile: pi4, count: 4}', byHand(3)), redundancy: undefined } as unknown as PlanProblem);
    expect(redundancyOf(plain)).toBeUndefined();
    // Bytes of the report are those of the estimate's links, as far as they come from or go to a parity.
    expect(report?.addedBytes).toBeLessThan(plan.estimate.links.reduce((sum, link) => sum + link.bytesPerFrame, 0));
  });

  it('is repaired at once when the agent is lost that merges and holds the parities: the parts stay, others take the rest', () => {
    const on = problem('{profile: pi4, count: 4}', byHand(3));
    const plan = planned(manual, on);
    const [[merging = ''] = []] = plan.stages.find(({ spec }) => spec.redundancy !== 1)?.agents ?? [];
    const slices = plan.cut.stages.map(({ parts }, s) =>
      parts.map(({ weightBytes }, p) => ({
        graph: { sha256: `${s}.${p}`, sizeBytes: 1 },
        ...{ blobs: [], macs: 1, weightBytes, activationBytes: 0 },
      })),
    );
    const left = on.devices.filter(({ agent }) => agent !== merging);
    const answer = repair({
      ...{ draft: plan, slices, lost: new Set([merging]), devices: left, mayTake: () => true },
      ...{ links: on.links, objective: 'latency', inFlight: 0, pauseMs: () => 100 },
    });
    if (isRefusal(answer)) throw new Error(answer.reason);
    const { draft, moves } = answer;
    const whole = plan.stages.flatMap(({ spec }, s) => (spec.redundancy === 1 ? [] : [s]));
    expect(moves.map(({ stage, from }) => [stage, from])).toEqual(whole.map((s) => [s, merging]));
    expect(draft.why).toContain('stages go on without the parities that it held');
    for (const [s, stage] of draft.stages.entries()) {
      expect(stage.spec.redundancy).toBeUndefined();
      expect(stage.agents.flat()).not.toContain(merging);
      if (!whole.includes(s)) expect(stage.agents[0]).toEqual(plan.stages[s]?.agents[0]?.slice(0, -1));
      // The very same slices.
      expect(draft.cut.stages[s]?.parts).toEqual(plan.cut.stages[s]?.parts.slice(0, draft.cut.stages[s]?.parts.length));
    }
    // Every input is filled by what is left, each element once.
    for (const [s, { parts }] of draft.cut.stages.entries()) {
      for (const [p, part] of parts.entries()) {
        const wires = draft.cut.wires.filter(({ toStage, toPart }) => toStage === s && toPart === p);
        const came = part.inputs.map((_, i) =>
          wires.filter(({ input }) => input === i).reduce((sum, { box }) => sum + elementCount(boxDims(box)), 0),
        );
        expect(came).toEqual(part.inputs.map(({ box }) => elementCount(boxDims(box))));
      }
    }
    // With a spare the parities stay.
    const spare = problem('{profile: pi4, count: 5}', byHand(3));
    const roomy = repair({
      ...{ draft: plan, slices, lost: new Set([merging]), devices: spare.devices.filter(({ agent }) => agent !== merging) },
      ...{ mayTake: () => true, links: on.links, objective: 'latency', inFlight: 0, pauseMs: () => 100 },
    });
    expect(isRefusal(roomy) ? 0 : roomy.draft.stages.filter(({ spec }) => spec.redundancy === 1).length).toBe(
      plan.stages.length - whole.length,
    );
  });

  it('counts the parity as a seat in time and memory', () => {
    const plan = planned(manual, problem('{profile: pi4, count: 4}', byHand(3)));
    const [stage] = plan.stages.keys();
    const seats = plan.estimate.seats.filter((seat) => seat.stage === stage);
    expect(seats).toHaveLength(4);
    expect(seats[3]?.ms).toBeCloseTo(seats[0]?.ms ?? 0, 5);
    expect(plan.estimate.memory).toHaveLength(4);
  });

  it('is refused with the reason where there are too few agents, or nothing can be coded; after a loss the plan goes on without', () => {
    const alone = problem('{profile: pi4}');
    expect(auto(alone)).toMatchObject({ refused: true, reason: expect.stringMatching(/a parity need 2 agents, 1 can take part/) });
    expect(manual(problem('{profile: pi4, count: 3}', byHand(3)))).toMatchObject({
      refused: true,
      reason: expect.stringMatching(/need 4 agents/),
    });
    const without = planned(auto, { ...alone, redundancy: { otherwise: 'without' } });
    expect(without.why).toMatch(/^without redundancy, as a part and a parity need 2 agents/);
    const mobile = structureOf(drawZoo('mobilenetv2'));
    expect(factsOf(mobile).coded?.([1, 1])).toBeInstanceOf(Array);
  });

  it('is a plan file with the holder of the parity, and the same plan when it is read again', () => {
    const on = problem('{profile: pi4, count: 4}', byHand(3, [3, 2, 2]));
    const plan = planned(manual, on);
    const head = { deployment: 'net', model: model.sha256, shapes: [], images: [], objective: 'latency', maxError: 0 };
    const text = planFileText(head, plan, facts);
    expect(text).toMatch(/parity: \[/);
    const stages = stagesOf(parsePlanFile(text), model.sha256, facts);
    const again = planned(filed, { ...on, seated: { by: 'hand', stages } });
    expect(again.stages).toEqual(plan.stages);
    expect(again.estimate).toEqual(plan.estimate);
  });

  it('is asked for with what can be coded only; a plan file says it itself, and the plans after it keep it', () => {
    const request = { name: 'net', model: 'net.onnx', ...DEPLOY_DEFAULTS, redundancy: 1 };
    checkRequest(request);
    checkRequest({ ...request, cut: 'channels:3' });
    const file = (stage: string) =>
      `version: 1\nmodel: "${model.sha256}"\nstages:\n  - {nodes: [0, 1], cut: channels, agents: [a, b]${stage}}`;
    const filedRequest = withPlanFile({ ...request, planner: '', redundancy: 0, plan: file(', parity: c') });
    expect(filedRequest.redundancy).toBe(1);
    checkRequest(filedRequest);
    const wrong = [{ redundancy: 2 }, { cut: 'rows:3' }, { planner: 'pipeline' }, { plan: file('') }];
    for (const over of wrong)
      expect(() => checkRequest({ ...request, ...over })).toThrow(expect.objectContaining({ code: 'PLAN_INVALID' }));
  });

  it.each([
    ['a parity of rows', '  - {blocks: [0, 1], cut: rows, shares: [1, 1], agents: [a, b], parity: c}', /only what is cut by outputs/],
    [
      'a parity on an agent that holds a part',
      '  - {blocks: [0, 1], cut: channels, shares: [1, 1], agents: [a, b], parity: b}',
      /one seat of a stage/,
    ],
    ['one parity for two replicas', '  - {blocks: [0, 1], cut: channels, replicas: [[a, b], [c, d]], parity: e}', /parities and replicas/],
  ])('in a file is refused: %s', (_, stage, message) => {
    const text = `version: 1\nmodel: "${model.sha256}"\nstages:\n${stage}`;
    expect(() => stagesOf(parsePlanFile(text), model.sha256, facts)).toThrow(message);
  });
});

describe('a plan with redundancy in simulated time', () => {
  const on = problem('{profile: pi4, count: 5}', byHand(3));
  const coded = planned(manual, on);
  const { redundancy, ...plainly } = on;
  const plain = planned(manual, plainly);
  const [part = ''] = redundancyOf(coded)?.covered ?? [];
  const simulated = (draft: PlanDraft, incidents: readonly Incident[]) => {
    const { devices, links } = on;
    return simulatePlan({
      draft,
      devices,
      links,
      load: { kind: 'closed', inFlight: 2 },
      budget: 2,
      frames: 80,
      incidents,
      untilMs: 60_000,
    });
  };

  it.each(['crash', 'vanish'] as const)('no frame waits, or is sent again, for a part that is gone: %s', (kind) => {
    const usual = simulated(coded, []);
    const result = simulated(coded, [{ kind, agent: part, atMs: 500 }]);
    expect(result.frames).toEqual({ sent: 80, completed: 80, failed: 0, reissued: 0 });
    expect(result.latencyMs.most).toBeLessThan(1.2 * usual.latencyMs.most);
    // Without a parity frames have nowhere to go.
    expect(simulated(plain, [{ kind, agent: part, atMs: 500 }]).frames.completed).toBeLessThan(80);
  });

  it('a link that drops to a twentieth, or a device that throttles, holds up nobody', () => {
    for (const kind of ['link', 'speed'] as const) {
      const incidents: Incident[] = [{ kind, agent: part, atMs: 0, factor: 0.05 }];
      expect(simulated(coded, incidents).latencyMs.p50).toBeLessThan(1.3 * simulated(coded, []).latencyMs.p50);
      expect(simulated(plain, incidents).latencyMs.p50).toBeGreaterThan(3 * simulated(plain, []).latencyMs.p50);
    }
  });
});
