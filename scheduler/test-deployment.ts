/** For tests: a deployment as it is when its plan is in force. */
import { DEPLOY_DEFAULTS } from './deploy-defaults.js';
import { createDeployment, type Deployment } from './deployment.js';
import { chain } from './planners/chain-model.js';
import { isRefusal, type PlanDraft } from './planners/problem.js';
import { placedOf } from './restoring.js';
import type { SavedDeployment } from './state.js';

/** In force: a cut with shares, figures that JSON has no word for, a cut that carries more than a plan needs. */
export function deployment(name: string, agents: readonly string[] = ['a', 'b']): Deployment {
  const facts = chain(new Array(3).fill({ macs: 1e9, weightBytes: 1e6, rows: 12 }), 12);
  const spec = { nodes: [0, 3] as const, cut: 'rows' as const, shares: [2, 1] };
  const cut = facts.cut([spec]);
  if (isRefusal(cut)) throw new Error(cut.reason);
  const bottleneck = { kind: 'compute' as const, who: 'a', ms: 3 };
  const memory = [{ agent: 'a', needBytes: 10, haveBytes: Number.POSITIVE_INFINITY }];
  const draft: PlanDraft = {
    ...{ planner: 'rows:2', why: 'because\nof "this"', stages: [{ spec, agents: [[...agents]] }], inFlight: 3 },
    cut: { ...cut, model: { weights: 'the whole of it' } } as typeof cut,
    estimate: { latencyMs: 4, fps: Number.POSITIVE_INFINITY, bottleneck, seats: [], weights: [], links: [], memory },
  };
  const head = { deployment: name, model: 'f'.repeat(64), term: 3, epoch: 7, planner: draft.planner, why: draft.why };
  const stages = [{ cut: 'rows', parts: [], agents: [[...agents]], redundancy: 0 }];
  const figures = { predictedLatencyMs: 4, predictedFps: 250 };
  const plan = { ...head, inputs: cut.inputs, outputs: cut.outputs, slices: {}, stages, wires: cut.wires, ...figures };
  const report = {
    ...head,
    ...figures,
    basis: '',
    seats: [],
    weights: [],
    links: [],
    memory: [],
    precision: null,
    redundancy: null,
    details: null,
  };
  const nonces = agents.map((agent) => [agent, `nonce of ${agent}`] as const);
  const request = { ...DEPLOY_DEFAULTS, name, model: 'net.onnx', maxError: 0.01, weight: 2.5 };
  const saved: SavedDeployment = {
    ...{
      format: 1,
      request,
      verified: true,
      maxRelDiff: 1e-7,
      afterLoss: true,
      plan,
      draft,
      report,
      alone: [],
      bases: [['a', 'probe']],
      nonces,
    },
  };
  return Object.assign(createDeployment(request, undefined), { serving: placedOf(saved), verified: true, maxRelDiff: 1e-7 });
}
