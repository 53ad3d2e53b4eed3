/**
 * From the wish for a plan to one that is placed: the model is read, a planner drafts, slices are written and verified, and what is no better than the plan in
 * force is left. Without a plan the deployment waits for agents. Whatever is placed is executing.ts's affair.
 */
import { ChairError, isChairError, toChairError } from '../broker/errors.js';
import { answerFirst, type Deployment, leftOut } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import type { Drafting, DraftingOptions } from './drafting.js';
import type { Housekeeping } from './housekeeping.js';
import type { LoadedModel } from './model-source.js';
import type { WrittenCut } from './plan-builder.js';
import type { PlanDraft } from './planners/problem.js';
import { parseObjective } from './planning.js';
import { planKey } from './rebalance/moving.js';
import { decide, USUAL_HORIZON_MS, worthOf } from './rebalance/worth.js';
import { hasRoute } from './router.js';

export interface PlanMakingOptions extends Pick<DraftingOptions, 'registry' | 'source' | 'log'> {
  readonly dispatcher: Dispatcher;
}

/** What it works with. */
export interface PlanMakingParts {
  readonly drafting: Drafting;
  readonly files: Housekeeping;
  readonly stopped: () => boolean;
  /** See `Deployments`. */
  readonly askForRoom: (deployment: Deployment) => Promise<boolean> | undefined;
  /** See `Executing`. */
  readonly place: (deployment: Deployment, draft: PlanDraft, written: WrittenCut, tight: Map<string, number>) => void;
  readonly kick: (deployment: Deployment) => void;
}

export class PlanMaking {
  readonly #o: PlanMakingOptions;
  readonly #parts: PlanMakingParts;

  constructor(options: PlanMakingOptions, parts: PlanMakingParts) {
    this.#o = options;
    this.#parts = parts;
  }

  /** The model, read once. Throws MODEL_...; MODEL_NOT_FOUND when another one stands where the saved one was. */
  async modelOf(deployment: Deployment): Promise<LoadedModel> {
    if (deployment.model !== undefined) return deployment.model;
    const model = await this.#parts.files.during(() => this.load(deployment));
    const { savedModel, request } = deployment;
    if (savedModel !== undefined && model.sha256 !== savedModel) {
      throw new ChairError('MODEL_NOT_FOUND', `the model of deployment '${deployment.name}' was changed while it served`, {
        expected: `sha256 ${savedModel} at ${request.model}`,
        came: model.sha256,
        todo: 'What is loaded goes on; to plan anew, put the file back, or undeploy it and deploy the new one.',
      });
    }
    deployment.model = model;
    return model;
  }

  /** Calibration inputs that do not fit are refused now, whether or not they will be needed. */
  async load({ request }: Deployment): Promise<LoadedModel> {
    const model = await this.#o.source.load(request);
    if (request.calibration.length > 0) await this.#o.source.frames(request.calibration, model.inputs);
    return model;
  }

  checkWanted(deployment: Deployment): void {
    if (this.#parts.stopped()) throw new ChairError('STOPPED', 'the scheduler was stopped');
    if (deployment.removing) throw new ChairError('DEPLOYMENT_REMOVED', `deployment '${deployment.name}' was removed meanwhile`);
  }

  async plan(deployment: Deployment, why: string, found?: PlanDraft): Promise<void> {
    deployment.planning = true;
    deployment.overtaken = false;
    deployment.optional = this.#parts.drafting.intact(deployment);
    try {
      const model = await this.modelOf(deployment);
      await this.#parts.files.during(() => this.#makePlan(deployment, model, why, found));
    } catch (error) {
      deployment.planning = false;
      this.#planFailed(deployment, toChairError(error));
    }
    this.#parts.kick(deployment);
  }

  /** `found`: the plan is there already, and nothing forces anybody to move to it. */
  async #makePlan(deployment: Deployment, model: LoadedModel, why: string, found?: PlanDraft): Promise<void> {
    const { name, recovering, unmeasured, retargeted, serving, inherited } = deployment;
    deployment.why = why;
    // Agents that did not come back after a restart are lost, too.
    const loss = serving !== undefined || inherited !== undefined;
    deployment.afterLoss = loss && !recovering && !unmeasured && !retargeted && found === undefined;
    const better = deployment.repaired && !recovering && !retargeted && found === undefined;
    deployment.recovering = false;
    deployment.retargeted = false;
    deployment.repaired = false;
    if (serving === undefined) deployment.state = 'planning';
    else this.#o.log('re-planning', `${name}: ${why}`);
    try {
      const draft = found ?? (await this.#draft(deployment));
      if (this.isInForce(deployment, draft)) {
        this.#o.log('planned', `${name}: the plan in force is still the best one`);
        deployment.state = 'serving';
        deployment.why = '';
        answerFirst(deployment);
        return;
      }
      if (better && this.#staysAsItIs(deployment, draft)) return;
      const written = await model.write(draft);
      if (deployment.request.verify && !deployment.verified) deployment.maxRelDiff = await model.verify(written);
      deployment.verified = true;
      this.checkWanted(deployment);
      if (deployment.serving !== serving || deployment.next !== undefined) {
        this.#o.log('abandoned', `${name}: the plan was repaired while a planner looked for another one`);
        return;
      }
      this.#parts.place(deployment, draft, written, serving === undefined ? new Map() : this.#parts.drafting.tight(serving.draft, draft));
    } catch (error) {
      if (found === undefined || !this.#parts.drafting.intact(deployment)) this.#planFailed(deployment, toChairError(error));
      else {
        deployment.state = 'serving';
        deployment.why = '';
        this.#o.log('failed', `${name}: a better plan could not be made: ${toChairError(error).message}`);
      }
    } finally {
      deployment.planning = false;
    }
  }

  /** Where there is no plan on what others leave, they are asked for room once. */
  async #draft(deployment: Deployment): Promise<PlanDraft> {
    try {
      return await this.#parts.drafting.draft(deployment);
    } catch (error) {
      if (deployment.serving !== undefined || !isChairError(error, 'PLAN_NOT_POSSIBLE')) throw error;
      if ((await this.#parts.askForRoom(deployment)) !== true) throw error;
      this.checkWanted(deployment);
      return this.#parts.drafting.draft(deployment);
    }
  }

  /** A repair is in force that is as good as the full plan, or its agents are being lost, too. */
  #staysAsItIs(deployment: Deployment, draft: PlanDraft): boolean {
    const { name, serving, request } = deployment;
    const now = this.#parts.drafting.expected(deployment);
    if (now === undefined || serving === undefined) return false;
    // What was asked for counts, whatever it costs.
    if (codedStages(draft) > codedStages(serving.draft)) return false;
    const want = { ...parseObjective(request.objective), pressed: false };
    const { move, why } = decide({
      current: worthOf(now, want),
      candidate: worthOf(draft.estimate, want),
      cost: this.#parts.drafting.cost(serving.draft, draft),
      horizonMs: USUAL_HORIZON_MS,
      recent: 0,
    });
    if (move) return false;
    deployment.state = 'serving';
    deployment.why = '';
    this.#o.log('kept', `${name}: the repaired plan stays; of a full one (${draft.planner}) ${why}`);
    return true;
  }

  /** The very plan that serves, on agents that all hold their seats: there is nothing to do. */
  isInForce(deployment: Deployment, draft: PlanDraft): boolean {
    const { serving } = deployment;
    if (serving === undefined || serving.vacated.size > 0 || !this.#parts.drafting.intact(deployment)) return false;
    return [...serving.seats.values()].every((progress) => progress === 'committed') && planKey(draft) === planKey(serving.draft);
  }

  #planFailed(deployment: Deployment, error: ChairError): void {
    if (error.code === 'STOPPED' || deployment.removing) return;
    if (deployment.yielded.size > 0) {
      // What was left to others is asked for again: one plan for each is better than none for one.
      deployment.yielded.clear();
      return;
    }
    const reasons = leftOut(deployment);
    // That no agent is left says nothing that the reasons do not.
    const rest = error.code === 'NO_AGENTS' ? 'no other agent is ready' : `without: ${error.message}`;
    this.wait(deployment, reasons.length === 0 ? error : new ChairError('PREPARE_FAILED', `${reasons.join('; ')}; ${rest}`));
    // Who came meanwhile was not asked, and will not come again.
    if (deployment.overtaken) deployment.stuck = false;
  }

  /** No plan for now: the first deploy request fails; later, frames wait until an agent comes. */
  wait(deployment: Deployment, error: ChairError): void {
    const waits = error.code === 'NO_AGENTS' || error.code === 'PLAN_NOT_POSSIBLE' ? 'waiting' : 'failed';
    deployment.stuck = true;
    deployment.why = error.message;
    this.#o.log(waits, `${deployment.name}: ${error.message}`);
    deployment.state = this.#isPassable(deployment) ? 'serving' : waits;
    if (deployment.state !== 'serving') this.#o.dispatcher.withdraw(deployment.name, error.message);
    answerFirst(deployment, error);
  }

  /** Whether frames still find a way through the plan in force, by other replicas or without a part that a parity stands in for. */
  #isPassable({ serving }: Deployment): boolean {
    const { registry } = this.#o;
    if (serving === undefined) return false;
    // Who has given up his seats for a plan that did not come about is there, but has none.
    return hasRoute(serving.plan.stages, (agent) => serving.vacated.has(agent) || !registry.serves(agent, serving.nonces.get(agent) ?? ''));
  }
}

function codedStages({ stages }: PlanDraft): number {
  return stages.filter(({ spec }) => spec.redundancy === 1).length;
}
