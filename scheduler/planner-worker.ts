/** The planners' own thread: a plan for many devices takes long, and heartbeats and frames must not wait for it. Keeps models as data and makes their cuts here. */
import { parentPort } from 'node:worker_threads';
import { revived } from '../models/onnx/attributes.js';
import { factsOf } from './model-facts.js';
import type { PlannerReply, PlannerRequest } from './planner-thread.js';
import { PLANNERS } from './planners/planners.js';
import { isRefusal, type ModelFacts, type PlanDraft, type PlanRefusal } from './planners/problem.js';

const port = parentPort;
if (port === null) throw new Error('planner-worker.ts is started by planner-thread.ts');

const models = new Map<number, ModelFacts>();

function answer(request: Extract<PlannerRequest, { readonly kind: 'plan' }>): PlanDraft | PlanRefusal {
  const planner = PLANNERS.get(request.planner);
  const facts = models.get(request.model);
  if (planner === undefined || facts === undefined)
    throw new Error(`no planner '${request.planner}' or no model ${request.model} in this thread`);
  return sendable(planner({ ...request.question, facts }));
}

/** Without what only this thread needs: a cut of models/slicing has the model in it. */
function sendable(plan: PlanDraft | PlanRefusal): PlanDraft | PlanRefusal {
  if (isRefusal(plan)) return plan;
  const { stages, wires, inputs, outputs } = plan.cut;
  return { ...plan, cut: { stages, wires, inputs, outputs } };
}

port.on('message', (request: PlannerRequest) => {
  if (request.kind === 'model') models.set(request.model, factsOf(revived(request.data)));
  else if (request.kind === 'forget') models.delete(request.model);
  else {
    let reply: PlannerReply;
    try {
      reply = { id: request.id, plan: answer(request) };
    } catch (error) {
      reply = { id: request.id, failed: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
    port.postMessage(reply);
  }
});
