/** Planning for devices that are not there: the same planners and the same requests, without broker, gateway and agents. */
import { ChairError } from '../../broker/errors.js';
import type { DeployRequest, PlanReport } from '../../broker/messages.js';
import type { Model } from '../../models/model.js';
import { describeNodes } from '../model-library.js';
import type { ManualCut } from '../model-source.js';
import { detailsOf, reportOf } from '../plan-builder.js';
import { withPlanFile } from '../plan-file.js';
import type { ModelFacts } from '../planners/problem.js';
import { askedOf, checkRequest, explainedDraft, planFor } from '../planning.js';
import { type DeviceFile, expand } from './device-file.js';

export interface OfflinePlanning {
  readonly request: DeployRequest;
  readonly manual: ManualCut | undefined;
  readonly model: Model;
  readonly facts: ModelFacts;
  readonly devices: DeviceFile;
}

/** Throws PLAN_..., AGENT_UNKNOWN, DEVICES_INVALID. */
export async function planOffline(given: OfflinePlanning): Promise<PlanReport> {
  const { manual, model, facts } = given;
  checkRequest(given.request);
  const request = withPlanFile(given.request);
  const { devices: all, links, notes } = expand(given.devices, model, facts);
  const unknown = request.agents.filter((name) => !all.some(({ agent }) => agent === name));
  if (unknown.length > 0) {
    const there = all.map(({ agent }) => agent).join(', ');
    throw new ChairError('AGENT_UNKNOWN', `the device file has no ${unknown.join(', ')}`, { todo: `It has: ${there}.` });
  }
  const devices = all.filter(({ agent }) => request.agents.length === 0 || request.agents.includes(agent));
  const away = new Map(devices.map(({ agent }) => [agent, 'ready']));
  const asked = askedOf({ request, facts, manual, links, fewerParts: false, model: model.sha256, devices, away });
  // Which bytes may travel shorter is measured on the model's outputs, where it is deployed.
  const full =
    request.maxError > 0
      ? [`maxError ${request.maxError} is not reckoned with: it is measured where the plan is deployed; here all bytes travel`]
      : [];
  const chosen = { ...(await planFor(request.name, asked)), basis: [...notes, ...full].join('\n') };
  const draft = request.explain ? await explainedDraft(asked, chosen) : chosen;
  const describe = (start: number, end: number): string => describeNodes(model, start, end);
  return { ...reportOf(request.name, 0, draft), details: detailsOf(request, { sha256: model.sha256, facts, describe }, draft) };
}
