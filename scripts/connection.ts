/** A client of the cluster for the length of one command. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { ChairError, isChairError } from '../broker/errors.js';
import type { PlanReport } from '../broker/messages.js';
import { trustOf } from '../broker/trust.js';
import type { ChairClient, ClientOptions, DeployOptions } from '../scheduler/client.js';
import { brokerUrl, checkPlain, type Settings } from './config.js';
import type { Output } from './output.js';
import { progressLine } from './report.js';
import { bytesText } from './table.js';

/** Throws BROKER_UNREACHABLE, GATEWAY_NOT_FOUND, GATEWAY_AMBIGUOUS, CREDENTIALS_..., CERTIFICATE_.... Whoever asks closes it. */
export async function connectClient(settings: Settings, options: Partial<ClientOptions> = {}): Promise<ChairClient> {
  const { ChairClient } = await import('../scheduler/client.js');
  const { commandCredentials } = await import('./credentials.js');
  const { knownBrokers } = await import('../broker/credentials/enrolment.js');
  const url = brokerUrl(settings);
  checkPlain(settings, url);
  const keeper = await commandCredentials(settings);
  const trust = keeper === undefined ? {} : { trust: trustOf(keeper), knownBrokers: await knownBrokers(keeper.directory) };
  // A dashboard may stay for weeks. Its timer keeps nothing alive.
  keeper?.start();
  try {
    return await ChairClient.connect({ ...trust, ...(url === undefined ? {} : { brokerUrl: url }), cluster: settings.cluster, ...options });
  } catch (error) {
    // A dashboard tries again and again.
    await keeper?.stop();
    throw error;
  }
}

/** Connects, hands the client over, and closes it whatever happens. Throws BROKER_UNREACHABLE, GATEWAY_NOT_FOUND, GATEWAY_AMBIGUOUS and what `use` throws. */
export async function withClient<T>(settings: Settings, use: (client: ChairClient) => Promise<T>): Promise<T> {
  const client = await connectClient(settings);
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

/** The error for a name that nothing is deployed under, with the names there are. */
export async function unknownDeployment(client: ChairClient, name: string): Promise<ChairError> {
  const names = (await client.status()).deployments.map((d) => d.name);
  const todo = names.length === 0 ? 'Nothing is deployed: `musical-chair deploy MODEL.onnx` does it.' : `There are: ${names.join(', ')}.`;
  return new ChairError('DEPLOYMENT_UNKNOWN', `no deployment is called ${name}`, { todo });
}

const SHA256 = /^[0-9a-f]{64}$/;
const ON_GATEWAY = 'gateway:';

/**
 * What a deploy request calls the model that the user named: a file here, which is sent unless the gateway has it; `gateway:PATH`, a file there; or the
 * sha256 of one that was sent before. Throws MODEL_..., UPLOAD_..., GATEWAY_STORE_FULL, BLOB_CORRUPT.
 */
export async function modelOnGateway(client: ChairClient, model: string, output: Output): Promise<string> {
  if (model.startsWith(ON_GATEWAY)) return model.slice(ON_GATEWAY.length);
  if (SHA256.test(model)) return model;
  const onProgress = (sent: number, total: number): void =>
    output.progress(`uploading ${Math.floor((100 * sent) / Math.max(1, total))} % of ${bytesText(total)}`);
  try {
    return await client.upload(path.resolve(model), { onProgress });
  } catch (error) {
    if (isChairError(error, 'MODEL_NOT_FOUND') && !existsSync(model)) throw (await ofTheZoo(model, error)) ?? error;
    throw error;
  }
}

/** The name of a network of the zoo is no file yet. */
async function ofTheZoo(model: string, cause: unknown): Promise<ChairError | undefined> {
  const { ZOO } = await import('../models/zoo/index.js');
  if (!ZOO.some((name) => name === model)) return undefined;
  const todo = `It is a network of the zoo: \`musical-chair models build ${model}\` writes ${model}.onnx.`;
  return new ChairError('MODEL_NOT_FOUND', `there is no file ${model}`, { expected: 'an ONNX file', came: 'a name', todo, cause });
}

/** Deploys, and shows how far the agents are while models travel. */
export async function deployWithProgress(client: ChairClient, request: DeployOptions, output: Output): Promise<PlanReport> {
  let done = false;
  let timer: NodeJS.Timeout | undefined;
  const look = async (): Promise<void> => {
    try {
      const { deployments } = await client.status(request.name);
      const deployment = deployments.find((d) => d.name === request.name);
      if (deployment !== undefined && !done) output.progress(progressLine(deployment));
    } catch {
      // Only the display: if the gateway is gone, the deploy request says so.
    }
    if (!done) timer = setTimeout(() => void look(), 250);
  };
  timer = setTimeout(() => void look(), 250);
  try {
    return await client.deploy(request);
  } finally {
    done = true;
    clearTimeout(timer);
  }
}
