/** `simulate`: a plan in simulated time, on devices of a file or on the agents of a running cluster. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, toChairError } from '../../broker/errors.js';
import type { DeployRequest, PlanReport } from '../../broker/messages.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { Device, PlanDraft, PlanRefusal } from '../../scheduler/planners/problem.js';
import type { Incident, SimulationOptions } from '../../scheduler/simulate/options.js';
import type { CommandDefinition, OptionValues } from '../command.js';
import { CLIENT_SETTINGS, type Settings } from '../config.js';
import { modelOnGateway, withClient } from '../connection.js';
import { DEPLOY_OPTIONS, deployRequest, optionText } from '../deploy-options.js';
import { localModel, localText } from '../local-model.js';
import type { Output } from '../output.js';
import { wholeNumber } from '../output.js';
import { parseIncidents, parseLoad, positive, SIMULATE_OPTIONS } from '../simulate-options.js';
import { type Simulated, simulationText, timelineSvg } from '../simulate-text.js';

/** Of `deploy`, what says something in a simulation. */
const PLAN_FLAGS = ['--objective', '--planner', '--cut', '--shares', '--shape', '--in-flight', '--deadline'];
const SPANS = 3000;

type Setup = Pick<SimulationOptions, 'draft' | 'devices' | 'links' | 'timesOfDrafts' | 'replan'> & { readonly notes: readonly string[] };

/** On devices that are not there. */
async function onDevices(text: string, given: DeployRequest, file: string): Promise<Setup> {
  const { expand, MAX_DEVICE_FILE_BYTES, parseDeviceFile } = await import('../../scheduler/devices/device-file.js');
  const { askedOf, checkRequest } = await import('../../scheduler/planning.js');
  const { withPlanFile } = await import('../../scheduler/plan-file.js');
  const { parseManualCut } = await import('../../scheduler/simulate/asked.js');
  checkRequest(given);
  const request = withPlanFile(given);
  const { model, facts } = await localModel(text, request);
  const fleet = parseDeviceFile(await localText(file, 'the device file', MAX_DEVICE_FILE_BYTES, 'DEVICES_INVALID'), file);
  const { devices, links, notes } = expand(fleet, model, facts);
  const manual = request.cut === '' ? undefined : parseManualCut(request.cut, request.shares);
  const plan = (there: readonly Device[], fewerParts: boolean): PlanDraft | PlanRefusal => {
    const away = new Map(devices.map(({ agent }) => [agent, there.some((one) => one.agent === agent) ? 'ready' : 'lost']));
    const { planner, problem } = askedOf({ request, facts, manual, links, fewerParts, model: model.sha256, devices: there, away });
    return planner(problem);
  };
  const replan = (left: readonly Device[]): PlanDraft | PlanRefusal => {
    try {
      return plan(left, true);
    } catch (error) {
      return { refused: true, reason: toChairError(error).message };
    }
  };
  return { draft: possible(plan(devices, false)), devices, links, replan, notes };
}

function possible(plan: PlanDraft | PlanRefusal): PlanDraft {
  if ('refused' in plan) throw new ChairError('PLAN_NOT_POSSIBLE', plan.reason);
  return plan;
}

/** On the agents of a running cluster: it plans, also for when agents fail; nothing is changed there. */
async function onCluster(
  client: ChairClient,
  text: string,
  asked: DeployRequest,
  incidents: readonly Incident[],
  output: Output,
): Promise<Setup> {
  const { reported } = await import('../../scheduler/simulate/from-report.js');
  const { model, facts } = await localModel(text, asked);
  const request = { ...asked, model: await modelOnGateway(client, text, output) };
  const status = await client.status();
  const agents = status.agents.filter(({ state }) => state === 'ready');
  const first = await client.plan(request);
  const setup = reported(first, model.sha256, facts, { ...status, agents });
  const plans = new Map<string, PlanReport>();
  const there = new Set(agents.map(({ agent }) => agent));
  for (const { kind, agent } of incidents) {
    if (kind === 'crash' || kind === 'vanish') there.delete(agent);
    else if (kind === 'return') there.add(agent);
    const names = [...there].sort();
    if (names.length > 0) plans.set(names.join(), await client.plan({ ...request, agents: names }));
  }
  const replan = (left: readonly Device[]): PlanDraft | PlanRefusal => {
    const report = plans.get(
      left
        .map(({ agent }) => agent)
        .sort()
        .join(),
    );
    if (report === undefined) return { refused: true, reason: 'the cluster was not asked for a plan for these agents' };
    return reported(report, model.sha256, facts, { ...status, agents }).draft;
  };
  const { usual } = setup.links;
  const notes = [
    first.basis,
    `links that nobody measured are taken for ${Math.round(usual.bytesPerSecond / 125e3)} Mbit/s, ${usual.latencyMs} ms`,
  ];
  return { ...setup, replan, notes: notes.filter(Boolean) };
}

/** Stages that follow each other and are alike are one entry. */
function stageText({ stages }: PlanDraft): string[] {
  const texts = stages.map(({ spec, agents }) => {
    const parts = spec.shares.length > 1 ? `${spec.cut} in ${spec.shares.length}` : 'whole';
    const [names = []] = agents;
    const on = names.length > 4 ? `${names.length} devices` : names.join(' ');
    return agents.length > 1 ? `${parts} on ${agents.length} replicas` : `${parts} on ${on}`;
  });
  const runs: { text: string; count: number }[] = [];
  for (const text of texts) {
    const last = runs.at(-1);
    if (last?.text === text) last.count++;
    else runs.push({ text, count: 1 });
  }
  return runs.map(({ text, count }) => (count === 1 ? text : `${count} stages of ${text}`));
}

async function setupOf(text: string, options: OptionValues, settings: Settings, output: Output): Promise<Setup> {
  const asked = deployRequest('simulated', text, options, true);
  const { MAX_PLAN_FILE_BYTES } = await import('../../scheduler/plan-file.js');
  const file = optionText(options, 'plan');
  const plan = file === '' ? '' : await localText(file, 'the plan file', MAX_PLAN_FILE_BYTES, 'PLAN_FILE_UNREADABLE');
  const devices = optionText(options, 'devices');
  if (devices !== '') return onDevices(text, { ...asked, plan }, devices);
  return withClient(settings, (client) => onCluster(client, text, { ...asked, plan }, parseIncidents(options), output));
}

export const simulate: CommandDefinition = {
  name: 'simulate',
  summary: 'Run a plan in simulated time: frames per second, latency, what is busy, what a failure does',
  description:
    'Admission, routes, re-issue, detection of losses and planning are the code that serves; devices, links and time are simulated. With --devices no cluster is needed, and the model may be a name of the zoo. Without, the agents of the running cluster are simulated as it knows them; nothing is changed there.',
  arguments: [{ syntax: '<model>', description: 'ONNX file, or with --devices a name from `models list`' }],
  options: [
    { flags: '--devices <file>', description: 'devices that are not there, as `plan --devices` takes them' },
    { flags: '--plan <file>', description: 'a plan file, instead of a planner' },
    ...DEPLOY_OPTIONS.filter(({ flags }) => PLAN_FLAGS.includes(flags.split(' ')[0] ?? '')),
    ...SIMULATE_OPTIONS,
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'simulate vgg16 --devices pis.yaml --objective throughput', text: 'a network of the zoo on the devices of a file' },
    {
      line: 'simulate det.onnx --objective throughput --fail pi-2@20 --return pi-2@60',
      text: 'what the running cluster would do without pi-2 for 40 s',
    },
  ],
  run: async ({ arguments: [text = ''], options, settings, output }) => {
    const { simulatePlan } = await import('../../scheduler/simulate/simulate.js');
    const { parseObjective } = await import('../../scheduler/planning.js');
    const incidents = parseIncidents(options);
    const { notes, ...setup } = await setupOf(text, options, settings, output);
    const { draft } = setup;
    const inFlight = wholeNumber(optionText(options, 'inFlight', '0'), '--in-flight', 0, 10_000) || draft.inFlight;
    const deadlineMs = wholeNumber(optionText(options, 'deadline', '0'), '--deadline', 0, 3_600_000);
    const timeline = optionText(options, 'timeline');
    const result = simulatePlan({
      ...{ ...setup, incidents, budget: inFlight, load: parseLoad(options, inFlight), spans: timeline === '' ? 0 : SPANS },
      frames: wholeNumber(optionText(options, 'frames', '400'), '--frames', 1, 1_000_000),
      seed: wholeNumber(optionText(options, 'seed', '1'), '--seed', 0, 2 ** 31),
      objective: parseObjective(optionText(options, 'objective', 'latency')).objective,
      noise: optionText(options, 'noise', '0') === '0' ? 0 : positive(optionText(options, 'noise'), '--noise', 5),
      discipline: options.fairLinks === true ? 'fair' : 'fifo',
      ...(deadlineMs > 0 ? { limits: { deadlineMs } } : {}),
    });
    if (timeline !== '') await writeFile(timeline, timelineSvg(`${path.basename(text)}: the first frames of the plan`, result.spans));
    const simulated: Simulated = { planner: draft.planner, stages: stageText(draft), inFlight, notes, result };
    const { endedAtMs, latenciesMs, spans, ...figures } = result;
    output.report({ planner: draft.planner, why: draft.why, inFlight, ...figures, notes }, () => simulationText(simulated, output.columns));
  },
};
