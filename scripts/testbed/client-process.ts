/** A client of the cluster as a process of its own, inside the testbed's network; the process that started it calls it over IPC (see client.ts). */
import { setTimeout as delay } from 'node:timers/promises';
import { isChairError, toChairError } from '../../broker/errors.js';
import { elementCount, itemBytes, type Tensor, type TensorInfo } from '../../broker/tensor.js';
import { ChairClient } from '../../scheduler/client.js';
import { announceReady, followParent, untilStopped } from '../lifetime.js';
import { errorLine } from '../output.js';
import type { Call, LoadReport, LoadRequest, Reply } from './client.js';
import { laterHalf, type SteadyCount, steadyCount } from './steady.js';

/** Different frames, so that nothing can be answered from memory; few, so that making them costs nothing while it is measured. */
const DIFFERENT_FRAMES = 4;
/** Whether enough has come steadily is looked at so often. */
const LOOK_MS = 250;

/** Small repeatable generator: inputs must vary, and be the same in two runs. */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function randomTensor({ dtype, dims }: TensorInfo, next: () => number): Tensor {
  const count = elementCount(dims);
  if (dtype === 'float32') {
    const values = Float32Array.from({ length: count }, () => next() * 2 - 1);
    return { dtype, dims, bytes: new Uint8Array(values.buffer) };
  }
  return { dtype, dims, bytes: Uint8Array.from({ length: count * itemBytes(dtype) }, () => Math.floor(next() * 256)) };
}

const knownInputs = new Map<string, readonly TensorInfo[]>();

/** Asked once: a status goes through the broker, whose bytes may be what is being counted. Empty when there is no such deployment: its frames fail. */
async function inputsOf(client: ChairClient, name: string): Promise<readonly TensorInfo[]> {
  const known = knownInputs.get(name);
  if (known !== undefined) return known;
  const { deployments } = await client.status(name);
  const inputs = deployments.find((d) => d.name === name)?.inputs ?? [];
  if (inputs.length > 0) knownInputs.set(name, inputs);
  return inputs;
}

/** Keeps `inFlight` frames outstanding until `frames` have ended. */
async function load(client: ChairClient, request: LoadRequest): Promise<LoadReport> {
  const inputs = await inputsOf(client, request.deployment);
  const next = numbers(request.seed ?? 1);
  const different = Array.from({ length: DIFFERENT_FRAMES }, () =>
    Object.fromEntries(inputs.map((info) => [info.name, randomTensor(info, next)])),
  );
  const [latenciesMs, endedAtMs]: [number[], number[]] = [[], []];
  const failures: string[] = [];
  let [sent, retried] = [0, 0];
  const startedAt = performance.now();
  let [steady, lookedAt]: [SteadyCount | null, number] = [null, startedAt];
  let isOver = false;
  const look = (atMs: number): void => {
    if (request.steady === undefined || isOver || atMs - lookedAt < LOOK_MS) return;
    lookedAt = atMs;
    steady = steadyCount({ endedAtMs, latenciesMs }, request.steady);
    const isLate = atMs - startedAt >= request.steady.mostMs;
    if (isLate && !steady.isEnough) steady = laterHalf({ endedAtMs });
    isOver = steady.isEnough || isLate;
  };
  const sender = async (): Promise<void> => {
    while (sent < request.frames && !isOver && performance.now() - startedAt < (request.forMs ?? Number.POSITIVE_INFINITY)) {
      const turn = sent++;
      const frame = different[turn % DIFFERENT_FRAMES] ?? {};
      if (request.perSecond !== undefined) await delay(startedAt + (turn * 1000) / request.perSecond - performance.now());
      const from = performance.now();
      try {
        const { attempts } = await client.infer(request.deployment, frame, { deadlineMs: request.deadlineMs ?? 120_000 });
        if (attempts > 1) retried++;
        const atMs = performance.now();
        latenciesMs.push(atMs - from);
        endedAtMs.push(atMs - startedAt);
        look(atMs);
      } catch (error) {
        failures.push(isChairError(error) ? error.code : String(error));
      }
    }
  };
  await Promise.all(Array.from({ length: request.inFlight }, sender));
  return { latenciesMs, endedAtMs, failures, retried, lane: client.lane(), steady };
}

async function answer(client: ChairClient, call: Call): Promise<unknown> {
  // The same name may come back with another model.
  if (call.method === 'deploy' || call.method === 'undeploy') knownInputs.clear();
  switch (call.method) {
    case 'deploy':
      return client.deploy(...call.args);
    case 'plan':
      return client.plan(...call.args);
    case 'adjust':
      return client.adjust(...call.args);
    case 'undeploy':
      return client.undeploy(...call.args);
    case 'status':
      return client.status(...call.args);
    case 'infer':
      return client.infer(...call.args);
    case 'profile':
      return client.profile(...call.args);
    case 'links':
      return client.links(...call.args);
    case 'peers':
      return client.peers(...call.args);
    case 'load':
      return load(client, ...call.args);
  }
}

async function main([brokerUrl = '', cluster = '', window = '16']: readonly string[]): Promise<void> {
  followParent();
  const stopped = untilStopped();
  const client = await ChairClient.connect({ brokerUrl, cluster, window: Number(window) });
  process.on('message', (message) => {
    if (typeof message !== 'object' || message === null || !('method' in message)) return;
    const call = message as Call;
    const reply = (value: Omit<Reply, 'id'>): void => void process.send?.({ id: call.id, ...value });
    answer(client, call).then(
      (value) => reply({ value }),
      (error: unknown) => {
        const { code, message: text } = toChairError(error);
        reply({ error: { code, message: text } });
      },
    );
  });
  announceReady({});
  await stopped;
  await client.close();
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: unknown) => {
    // The last line with a code is what the parent reports.
    console.error(errorLine(error));
    process.exit(1);
  },
);
