/** `deploy`, `plan` and `undeploy`. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { DeployRequest, PlanReport } from '../../broker/messages.js';
import { publicUrl } from '../../broker/public-url.js';
import type { ChairClient } from '../../scheduler/client.js';
import { calibrationFrames } from '../calibrate.js';
import type { CommandDefinition, Invocation, OptionValues } from '../command.js';
import { CLIENT_SETTINGS, type Settings } from '../config.js';
import { deployWithProgress, modelOnGateway, withClient } from '../connection.js';
import { checkName, DEPLOY_OPTIONS, deployRequest, optionText } from '../deploy-options.js';
import { explainText } from '../explain-text.js';
import { localModel, localText } from '../local-model.js';
import type { Output } from '../output.js';
import { PROGRAM } from '../package-root.js';
import { planText } from '../report.js';
import { planSummary } from '../status-text.js';
import { profileWithProgress } from './profile.js';

const MODEL_ARGUMENT = {
  syntax: '<model>',
  description: 'ONNX file, sent to the gateway unless it has it; gateway:PATH names a file there, a sha256 one that was sent before',
};

/** `models/det.onnx` -> `det`: a name when none is given. */
function nameOf(model: string, options: OptionValues): string {
  const given = optionText(options, 'name');
  if (given !== '') return given;
  return path
    .basename(model.replace(/^gateway:/, ''), '.onnx')
    .replaceAll(/[^A-Za-z0-9._-]/g, '-')
    .slice(0, 64);
}

/** The options another command needs to reach the same cluster. */
function where({ broker, cluster, insecure }: Settings): string {
  return `${insecure ? ' --insecure' : ''}${broker === 'auto' ? '' : ` --broker ${publicUrl(broker)}`}${cluster === 'default' ? '' : ` --cluster ${cluster}`}`;
}

/** The request with everything that it names on the gateway. Calibration frames are read before anything is sent: a bad one is found at once. */
async function onGateway(client: ChairClient, request: DeployRequest, options: OptionValues, output: Output): Promise<DeployRequest> {
  const frames = await calibrationFrames(options, request.images);
  const model = await modelOnGateway(client, request.model, output);
  if (options.profile === true) {
    const { shapes, images, agents } = request;
    await profileWithProgress(client, { model, shapes, images, agents }, output);
  }
  return { ...request, model, calibration: frames.length === 0 ? [] : await client.uploadFrames(frames) };
}

const PROFILE_OPTION = {
  flags: '--profile',
  description: 'first measure what is not known yet of this model on these agents (see the command profile); takes minutes',
};

/** What a plan file decides: with one, these say something else. */
const DECIDED = ['objective', 'planner', 'cut', 'shares', 'agents'] as const;

/** The request with the text of the plan file that an option names. Throws USAGE, FILE_NOT_FOUND, PLAN_FILE_UNREADABLE. */
async function withFile(request: DeployRequest, options: OptionValues, option: 'plan' | 'check'): Promise<DeployRequest> {
  const file = optionText(options, option);
  if (file === '') return request;
  const other = DECIDED.find((name) => options[name] !== undefined);
  if (other !== undefined) {
    throw new ChairError('USAGE', `--${option} and --${other} say different things`, {
      todo: `The plan file decides: leave out --${other}, or edit the file.`,
    });
  }
  const { MAX_PLAN_FILE_BYTES, withPlanFile } = await import('../../scheduler/plan-file.js');
  const plan = await localText(file, 'the plan file', MAX_PLAN_FILE_BYTES, 'PLAN_FILE_UNREADABLE');
  return withPlanFile({ ...request, plan });
}

/** `--verify` in one line. */
function verifiedText({ details }: PlanReport): string[] {
  if (details === null || details.maxRelDiff < 0) return [];
  const { maxRelDiff } = details;
  const said = maxRelDiff === 0 ? 'bit for bit' : `but for ${maxRelDiff.toExponential(1)} of its largest output (1e-4 is allowed)`;
  return [`Verified: the slices compute what the whole model computes, ${said}.`];
}

export const deploy: CommandDefinition = {
  name: 'deploy',
  summary: 'Cut a model, seat its slices on agents and serve it under a name',
  description:
    'Resolves when frames can be sent. The model is sent to the gateway first when it is not there. A name in use is refused with DEPLOYMENT_EXISTS: undeploy it first. Prints a summary of the plan; with --verbose all of it.',
  arguments: [MODEL_ARGUMENT],
  options: [
    { flags: '--name <name>', description: "name of the deployment; default: the file's name" },
    ...DEPLOY_OPTIONS,
    PROFILE_OPTION,
    { flags: '--plan <file>', description: 'deploy this plan, made with `plan --out` and perhaps edited, instead of asking a planner' },
    { flags: '--verify', description: 'compare the cut model with the whole one before it is served' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'deploy det.onnx --name det --shape x=1,3,640,640 --cut rows:4', text: 'four agents, each with a band of the image' },
    { line: 'deploy det.onnx --plan plan.yaml --verify', text: 'a plan made by hand, proved before it serves' },
  ],
  run: async ({ arguments: [model = ''], options, settings, output }) => {
    const request = await withFile(deployRequest(nameOf(model, options), model, options, false), options, 'plan');
    const plan = await withClient(settings, async (client) =>
      deployWithProgress(client, await onGateway(client, request, options, output), output),
    );
    output.report(plan, () =>
      [
        options.verbose === true ? planText(plan, output.columns) : planSummary(plan, output.columns),
        ...verifiedText(plan),
        ...(plan.precision === null || options.verbose === true ? [] : [`Wire precision: ${plan.precision.why}.`]),
        `${request.name} is served. Send frames (${request.images.length > 0 ? 'image files of any size' : '.npy files; images when deployed with --image'}) with:`,
        `  ${PROGRAM} infer ${request.name} FILE...${where(settings)}`,
      ].join('\n'),
    );
  },
};

/** Of the running cluster, or of devices that are not there. */
async function planned(request: DeployRequest, { options, settings, output }: Invocation): Promise<PlanReport> {
  const file = optionText(options, 'devices');
  if (file !== '' && options.profile === true)
    throw new ChairError('USAGE', '--profile cannot be used with --devices', { todo: 'What is not there cannot be measured.' });
  if (file === '') return withClient(settings, async (client) => client.plan(await onGateway(client, request, options, output)));
  if (optionText(options, 'maxError', '0') !== '0')
    throw new ChairError('USAGE', '--max-error cannot be used with --devices', { todo: 'Errors are measured by a gateway.' });
  const { MAX_DEVICE_FILE_BYTES, parseDeviceFile } = await import('../../scheduler/devices/device-file.js');
  const { planOffline } = await import('../../scheduler/devices/offline.js');
  const { parseManualCut } = await import('../../scheduler/simulate/asked.js');
  const devices = parseDeviceFile(await localText(file, 'the device file', MAX_DEVICE_FILE_BYTES, 'DEVICES_INVALID'), file);
  const { model, facts } = await localModel(request.model, request);
  const manual = request.cut === '' ? undefined : parseManualCut(request.cut, request.shares);
  return planOffline({ request, manual, model, facts, devices });
}

/** Throws FILE_NOT_FOUND. */
async function writePlan(file: string, { details }: PlanReport): Promise<void> {
  const text = details?.file ?? '';
  if (text === '')
    throw new ChairError('PLAN_NOT_POSSIBLE', 'the plan is too large for a file', { expected: 'at most 1 MiB of stages and agents' });
  const { parsePlanFile } = await import('../../scheduler/plan-file.js');
  const content = file.endsWith('.json') ? `${JSON.stringify(parsePlanFile(text), null, 2)}\n` : text;
  await writeFile(file, content).catch((cause: unknown) => {
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be written`, {
      came: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  });
}

function planReportText(report: PlanReport, { options, output }: Invocation, objective: string): string {
  const width = output.columns;
  const out = optionText(options, 'out');
  const checked = optionText(options, 'check');
  // What is for devices that are not there cannot be checked by a gateway, nor deployed.
  const devices = optionText(options, 'devices');
  const next =
    devices === ''
      ? [`  ${PROGRAM} plan MODEL --check ${out}`, `  ${PROGRAM} deploy MODEL --plan ${out}`]
      : [`  ${PROGRAM} plan MODEL --check ${out} --devices ${devices}`, `  ${PROGRAM} simulate MODEL --plan ${out} --devices ${devices}`];
  // What would change the plan is told by plans that were made for it; the planner's own word on it was a guess.
  const why = report.why.split('\n').filter((line) => options.explain !== true || !line.startsWith('would change it'));
  return [
    planText({ ...report, why: why.join('\n') }, width),
    ...(options.explain === true ? ['', explainText(report, objective, width)] : []),
    ...(checked === '' ? [] : ['', devices === '' ? `${checked} can be deployed as it is.` : `${checked} is a plan for these devices.`]),
    ...(out === '' ? [] : ['', `Written to ${out}. Edit it, then:`, ...next]),
  ].join('\n');
}

export const plan: CommandDefinition = {
  name: 'plan',
  summary: 'Show what deploy would do: stages, slices, agents, predicted ms, bytes per link, memory',
  description:
    'Nothing is changed. With --devices no gateway is needed: the plan is for the devices of a file, and the model may be a name from `models list`.',
  arguments: [MODEL_ARGUMENT],
  options: [
    { flags: '--name <name>', description: "name of the deployment; default: the file's name" },
    ...DEPLOY_OPTIONS,
    PROFILE_OPTION,
    { flags: '--explain', description: 'compare with every planner, and plan again with more memory, faster links and one more device' },
    { flags: '--out <file>', description: 'write the plan as a file to edit and deploy, YAML or (.json) JSON' },
    { flags: '--check <file>', description: 'look at a plan file instead of planning: whether it can be deployed, and what it would do' },
    {
      flags: '--devices <file>',
      description: 'plan for these devices, which need not be there: profiles pi3-2018, pi4, pi5 or your own (docs/planning.md)',
    },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'plan alexnet.onnx --objective throughput --explain', text: 'as many frames per second as possible, and why not more' },
    { line: 'plan det.onnx --shape x=1,3,640,640 --out plan.yaml', text: 'a plan to edit by hand' },
    { line: 'plan vgg16 --devices pis.yaml --objective latency', text: 'what six Raspberry Pis would do, before they are bought' },
  ],
  run: async (invocation) => {
    const {
      arguments: [model = ''],
      options,
      output,
    } = invocation;
    const request = await withFile(deployRequest(nameOf(model, options), model, options, true), options, 'check');
    const report = await planned(request, invocation);
    const out = optionText(options, 'out');
    if (out !== '') await writePlan(out, report);
    output.report(report, () => planReportText(report, invocation, request.objective));
  },
};

export const undeploy: CommandDefinition = {
  name: 'undeploy',
  summary: 'Stop serving a deployment and give its memory back',
  description: 'Frames under way end with DEPLOYMENT_REMOVED.',
  arguments: [{ syntax: '<name>', description: 'name of the deployment' }],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [{ line: 'undeploy det', text: 'the deployment det is gone' }],
  run: async ({ arguments: [name = ''], settings, output }) => {
    checkName(name, 'the deployment');
    await withClient(settings, (client) => client.undeploy(name));
    output.report({ name, removed: true }, () => `${name} is no longer served.`);
  },
};
