/** The cluster that chaos befalls: a testbed, two deployments, and what their frames should give. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { buildZoo } from '../../models/zoo/index.js';
import type { DeployOptions } from '../../scheduler/client.js';
import type { DeviceSpec } from '../testbed/devices.js';
import { startTestbed, type Testbed } from '../testbed/testbed.js';
import { Inside, type LoadRequest, type Tensors } from './inside.js';
import { EXTRA_DEPLOYMENT, PLANNED_DEPLOYMENT } from './schedule.js';

/** Different frames of each deployment: a result of another frame must not pass for this one's. */
const DIFFERENT_FRAMES = 6;
const DEADLINE_MS = 30_000;
const INSIDE = fileURLToPath(new URL('./inside-process.ts', import.meta.url));
/** Small enough to be filled in no time, and for slices to be thrown out of it. */
export const DISK_BYTES = 192 * 2 ** 20;
export const STORE_MB = 48;

export interface StageOptions {
  readonly agents: number;
  /** Names of agents that may join besides. */
  readonly spares: number;
  readonly device: DeviceSpec;
  readonly isolated?: boolean;
  readonly cli?: string;
  readonly onLine?: (child: string, line: string) => void;
}

export interface Stage {
  readonly testbed: Testbed;
  readonly inside: Inside;
  /** Names of agents at the beginning, and of those that may join. */
  readonly agents: readonly string[];
  readonly spares: readonly string[];
  /** Those that are always wanted, and the one that comes and goes. */
  readonly deployments: readonly DeployOptions[];
  readonly extra: DeployOptions;
  /** Bytes of the models' files together. */
  readonly loads: readonly LoadRequest[];
  stop(): Promise<void>;
}

/** Any one part of this deployment may be lost, and no frame notices. */
export const CODED_DEPLOYMENT = 'coded';

/** A network cut by rows breaks when any of its agents goes; one that the planner seats as it likes moves about; a coded one does without any one part. */
const NETWORKS = [
  { name: 'cut', zoo: 'resnet18', options: { scale: 0.125, size: 64, classes: 10, seed: 5 }, deploy: { cut: 'rows:3' } },
  {
    name: CODED_DEPLOYMENT,
    zoo: 'alexnet',
    options: { scale: 0.125, size: 67, classes: 10, seed: 7 },
    deploy: { cut: 'channels:2', redundancy: 1 },
  },
  { name: PLANNED_DEPLOYMENT, zoo: 'mobilenetv2', options: { scale: 0.25, size: 64, classes: 10 }, deploy: { objective: 'throughput' } },
  { name: EXTRA_DEPLOYMENT, zoo: 'resnet18', options: { scale: 0.125, size: 32, classes: 4, seed: 9 }, deploy: { cut: 'stages:2' } },
] as const;

export async function setStage(options: StageOptions): Promise<Stage> {
  const models = await mkdtemp(path.join(tmpdir(), 'musical-chair-chaos-'));
  const undo: (() => Promise<unknown>)[] = [() => rm(models, { recursive: true, force: true })];
  const stop = async (): Promise<void> => {
    for (const one of undo.splice(0).reverse()) await one();
  };
  try {
    const made = await Promise.all(
      NETWORKS.map(async ({ name, zoo, options: network, deploy }) => {
        const model = path.join(models, `${name}.onnx`);
        await buildZoo(zoo, model, network);
        return { name, deployment: { name, model, ...deploy } satisfies DeployOptions, frames: await framesOf(model) };
      }),
    );
    const names = (from: number, count: number): string[] => Array.from({ length: count }, (_, i) => `agent-${from + i}`);
    const [agents, spares] = [names(1, options.agents), names(options.agents + 1, options.spares)];
    const testbed = await startTestbed({
      agents: agents.map(() => options.device),
      broker: 'own',
      threads: 1,
      cluster: 'chaos',
      clocks: true,
      diskBytes: DISK_BYTES,
      agentArguments: ['--store-mb', String(STORE_MB)],
      ...(options.isolated === undefined ? {} : { isolated: options.isolated }),
      ...(options.cli === undefined ? {} : { cli: options.cli }),
      ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
    });
    undo.push(() => testbed.stop());
    const onLine = (line: string): void => options.onLine?.('inside', line);
    const args = [testbed.gateway.url, testbed.cluster, [...agents, ...spares].join(',')];
    const inside = new Inside(await testbed.program('inside', INSIDE, args, onLine));
    const load = { inFlight: 3, pauseMs: 150, deadlineMs: DEADLINE_MS };
    const wanted = made.filter(({ name }) => name !== EXTRA_DEPLOYMENT);
    const extra = made.find(({ name }) => name === EXTRA_DEPLOYMENT)?.deployment;
    if (extra === undefined) throw new Error('no extra deployment');
    return {
      ...{ testbed, inside, agents, spares, extra, stop },
      deployments: wanted.map(({ deployment }) => deployment),
      loads: wanted.map(({ name, frames }) => ({ deployment: name, frames, ...load })),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Random frames of a model, and what the whole model makes of them on this machine. */
async function framesOf(model: string): Promise<{ inputs: Tensors; expected: Tensors }[]> {
  const engine = await createOnnxRuntimeEngine({ threads: 1 });
  try {
    const session = await engine.load(model);
    const frames: { inputs: Tensors; expected: Tensors }[] = [];
    for (let i = 0; i < DIFFERENT_FRAMES; i++) {
      const inputs = Object.fromEntries(session.inputs.map((info) => [info.name, randomTensor(info, 700 + i)]));
      frames.push({ inputs, expected: (await session.run(inputs)).outputs });
    }
    return frames;
  } finally {
    await engine.dispose();
  }
}
