/** `deploy`, `plan` and `undeploy`. */
import path from 'node:path';
import type { DeployRequest } from '../../broker/messages.js';
import type { ChairClient } from '../../scheduler/client.js';
import { calibrationFrames } from '../calibrate.js';
import type { CommandDefinition, OptionValues } from '../command.js';
import type { Settings } from '../config.js';
import { deployWithProgress, modelOnGateway, withClient } from '../connection.js';
import { checkName, DEPLOY_OPTIONS, deployRequest, optionText } from '../deploy-options.js';
import type { Output } from '../output.js';
import { PROGRAM } from '../package-root.js';
import { planText } from '../report.js';
import { planSummary } from '../status-text.js';

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
function where({ broker, cluster }: Settings): string {
  return `${broker === DEFAULT_BROKER ? '' : ` --broker ${broker}`}${cluster === 'default' ? '' : ` --cluster ${cluster}`}`;
}

const DEFAULT_BROKER = 'mqtt://127.0.0.1:1883';

/** The request with everything that it names on the gateway. Calibration frames are read before anything is sent: a bad one is found at once. */
async function onGateway(client: ChairClient, request: DeployRequest, options: OptionValues, output: Output): Promise<DeployRequest> {
  const frames = await calibrationFrames(options, request.images);
  return {
    ...request,
    model: await modelOnGateway(client, request.model, output),
    calibration: frames.length === 0 ? [] : await client.uploadFrames(frames),
  };
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
    { flags: '--verify', description: 'compare the cut model with the whole one before it is served' },
  ],
  settings: ['broker', 'cluster'],
  json: true,
  examples: [{ line: 'deploy det.onnx --name det --shape x=1,3,640,640 --cut rows:4', text: 'four agents, each with a band of the image' }],
  run: async ({ arguments: [model = ''], options, settings, output }) => {
    const request = deployRequest(nameOf(model, options), model, options, false);
    const plan = await withClient(settings, async (client) =>
      deployWithProgress(client, await onGateway(client, request, options, output), output),
    );
    output.report(plan, () =>
      [
        options.verbose === true ? planText(plan, output.columns) : planSummary(plan, output.columns),
        ...(request.verify ? ['Verified: the slices compute what the whole model computes, within 1e-4 of its largest output.'] : []),
        `${request.name} is served. Send frames with:`,
        `  ${PROGRAM} infer ${request.name} FILE...${where(settings)}`,
      ].join('\n'),
    );
  },
};

export const plan: CommandDefinition = {
  name: 'plan',
  summary: 'Show what deploy would do: stages, slices, agents, predicted ms, bytes per link, memory',
  description: 'Nothing is changed.',
  arguments: [MODEL_ARGUMENT],
  options: [{ flags: '--name <name>', description: "name of the deployment; default: the file's name" }, ...DEPLOY_OPTIONS],
  settings: ['broker', 'cluster'],
  json: true,
  examples: [{ line: 'plan alexnet.onnx --objective throughput', text: 'the plan for as many frames per second as possible' }],
  run: async ({ arguments: [model = ''], options, settings, output }) => {
    const request = deployRequest(nameOf(model, options), model, options, true);
    const report = await withClient(settings, async (client) => client.plan(await onGateway(client, request, options, output)));
    output.report(report, () => planText(report, output.columns));
  },
};

export const undeploy: CommandDefinition = {
  name: 'undeploy',
  summary: 'Stop serving a deployment and give its memory back',
  description: 'Frames under way end with DEPLOYMENT_REMOVED.',
  arguments: [{ syntax: '<name>', description: 'name of the deployment' }],
  settings: ['broker', 'cluster'],
  json: true,
  examples: [{ line: 'undeploy det', text: 'the deployment det is gone' }],
  run: async ({ arguments: [name = ''], settings, output }) => {
    checkName(name, 'the deployment');
    await withClient(settings, (client) => client.undeploy(name));
    output.report({ name, removed: true }, () => `${name} is no longer served.`);
  },
};
