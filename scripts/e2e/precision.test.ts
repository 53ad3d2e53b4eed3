import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { carried } from '../../broker/encoding.js';
import type { PlanReport } from '../../broker/messages.js';
import { type Encoding, SINK, SOURCE, type Wire } from '../../broker/plan.js';
import { allocTensor, type Tensor } from '../../broker/tensor.js';
import type { Engine } from '../../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import type { Model } from '../../models/model.js';
import { loadModel } from '../../models/onnx/load.js';
import { randomTensor } from '../../models/random.js';
import { compare } from '../../models/slicing/compare.js';
import { partition } from '../../models/slicing/cut.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { PartitionRunner } from '../../models/slicing/run.js';
import { writeSlices } from '../../models/slicing/write.js';
import { buildZoo } from '../../models/zoo/index.js';
import { type RunningAgent, runAgent } from '../../node-agent/main.js';
import { ChairClient } from '../../scheduler/client.js';
import { Gateway } from '../../scheduler/gateway.js';
import { libraryDirectories, ModelLibrary } from '../../scheduler/model-library.js';
import type { ModelSource } from '../../scheduler/model-source.js';
import { untilAgentsReady } from '../commands/cluster.js';

/** Gateway and agents of this process: the encodings of the next plan are set here, not chosen. */
let encodingOf: (wire: Wire) => Encoding = () => 'raw';
/** Of the plan that was made last. */
let stages: readonly StageSpec[] = [];
let folder = '';
let file = '';
let engine: Engine;
let model: Model;
let gateway: Gateway;
let client: ChairClient;
const agents: RunningAgent[] = [];
const inputs: Record<string, Tensor>[] = [];

/** The library, but wires are encoded as the test says. */
function sourceWithEncodings(inner: ModelSource): ModelSource {
  return {
    frames: (names, infos) => inner.frames(names, infos),
    parseCut: (text, shares) => inner.parseCut(text, shares),
    load: async (request) => {
      const loaded = await inner.load(request);
      // Planned here and not in the planner's thread, which would not know of the encodings.
      const { elsewhere: _, ...facts } = loaded.facts;
      return {
        ...loaded,
        write: (draft) => {
          stages = draft.stages.map(({ spec }) => spec);
          return loaded.write(draft);
        },
        facts: {
          ...facts,
          cut: (specs) => {
            const cut = facts.cut(specs);
            return 'refused' in cut ? cut : { ...cut, wires: cut.wires.map((wire) => ({ ...wire, encoding: encodingOf(wire) })) };
          },
        },
      };
    },
  };
}

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-precision-'));
  file = path.join(folder, 'net.onnx');
  await buildZoo('resnet18', file, { scale: 0.125, size: 64, classes: 10, seed: 5 });
  engine = await createOnnxRuntimeEngine({ threads: 1 });
  model = await loadModel(file, { engine, workDirectory: path.join(folder, 'weights') });
  for (let i = 0; i < 3; i++) inputs.push(Object.fromEntries(model.inputs.map((info) => [info.name, randomTensor(info, 50 + i)])));
  const state = path.join(folder, 'gateway');
  const library = new ModelLibrary({ ...libraryDirectories(state), createEngine: () => createOnnxRuntimeEngine({ threads: 1 }) });
  gateway = new Gateway({
    cluster: 'precision',
    stateDirectory: state,
    broker: { host: '127.0.0.1', port: 0 },
    laneHost: '127.0.0.1',
    addresses: ['127.0.0.1'],
    source: sourceWithEncodings(library),
  });
  await gateway.start();
  for (const name of ['a', 'b', 'c']) {
    const directory = path.join(folder, name);
    const common = { cluster: 'precision', broker: gateway.brokerUrl, laneHost: '127.0.0.1', addresses: ['127.0.0.1'], healthMs: 100 };
    agents.push(await runAgent({ ...common, name, directory, threads: 1 }, { softwareVersion: 'test' }));
  }
  client = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: 'precision' });
  await untilAgentsReady(client, 3);
}, 60_000);

afterAll(async () => {
  await client?.close();
  await Promise.all(agents.map((agent) => agent.stop()));
  await gateway?.stop();
  await engine?.dispose();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

/** What the oracle makes of an input when the wires between agents of the plan are encoded as the test says. */
async function oracle(
  plan: PlanReport,
  input: Record<string, Tensor>,
): Promise<{ encoded: Record<string, Tensor>; raw: Record<string, Tensor> }> {
  const cutModel = partition(model, stages);
  const agentAt = (stage: number, part: number): string =>
    stage < 0 ? `dispatcher` : (plan.seats.find((seat) => seat.stage === stage && seat.part === part)?.agent ?? '');
  const encodings = cutModel.wires.map((wire): Encoding => {
    const crosses = agentAt(wire.fromStage, wire.fromPart) !== agentAt(wire.toStage, wire.toPart);
    return crosses ? encodingOf(wire) : 'raw';
  });
  expect(encodings.some((encoding) => encoding !== 'raw')).toBe(true);
  const runner = new PartitionRunner(await writeSlices(cutModel, path.join(folder, 'oracle')), engine);
  try {
    const encoded = (await runner.run(input, { encodings, carry: carried })).outputs;
    return { encoded, raw: (await runner.run(input)).outputs };
  } finally {
    await runner.dispose();
  }
}

describe('agents that send encoded activations', () => {
  it.each([
    ['stages:3', 'uint8', 'on all wires, the dispatcher’s too', () => 'uint8'],
    ['rows:3', 'uint8', 'between seats only', ({ fromStage, toStage }) => (fromStage === SOURCE || toStage === SINK ? 'raw' : 'uint8')],
    ['rows:2', 'float16', 'on all wires', () => 'float16'],
    ['stages:2', 'mixed', 'by wire', ({ fromStage }) => (fromStage === SOURCE ? 'float16' : 'uint8')],
  ] as [string, string, string, (wire: Wire) => Encoding][])(
    'compute with %s as %s exactly what the oracle computes with the same encodings, %s',
    async (cut, _encoding, _where, encoding) => {
      encodingOf = encoding;
      const plan = await client.deploy({ name: 'net', model: file, cut });
      try {
        for (const input of inputs) {
          const { outputs } = await client.infer('net', input);
          const { encoded, raw } = await oracle(plan, input);
          expect(compare(encoded, outputs)).toMatchObject({ bitEqual: true, comparable: true });
          // The encodings did travel: raw wires give something else.
          expect(compare(raw, outputs).maxRelDiff).toBeGreaterThan(1e-5);
        }
        const { agents: rows } = await client.status();
        await expect.poll(async () => rowsOf((await client.status()).agents).encoded, { timeout: 5000 }).toBeGreaterThan(0);
        expect(rows.every((row) => (row.health?.rawFallbacks ?? 0) === 0)).toBe(true);
      } finally {
        await client.undeploy('net');
      }
    },
    60_000,
  );

  it('send raw, and say so, what the encoding cannot carry', { timeout: 60_000 }, async () => {
    encodingOf = () => 'uint8';
    const plan = await client.deploy({ name: 'net', model: file, cut: 'stages:2' });
    try {
      const [info] = model.inputs;
      if (info === undefined) throw new Error('the model has no input');
      const bad = allocTensor(info.dtype, info.dims);
      new Float32Array(bad.bytes.buffer).fill(Number.NaN, 0, 5);
      const { outputs } = await client.infer('net', { [info.name]: bad });
      const { encoded } = await oracle(plan, { [info.name]: bad });
      expect(compare(encoded, outputs)).toMatchObject({ bitEqual: true, comparable: true });
      expect(Object.values(outputs).some((tensor) => new Float32Array(tensor.bytes.buffer).some(Number.isNaN))).toBe(true);
      const { deployments } = await client.status('net');
      // The input, by the dispatcher; what follows, by the agents.
      expect(deployments[0]?.rawFallbacks).toBe(1);
      await expect.poll(async () => rowsOf((await client.status()).agents).fallbacks, { timeout: 5000 }).toBeGreaterThan(0);
    } finally {
      await client.undeploy('net');
    }
  });
});

function rowsOf(rows: readonly { readonly health: { readonly encodedMessages: number; readonly rawFallbacks: number } | null }[]): {
  encoded: number;
  fallbacks: number;
} {
  const sum = (of: (row: (typeof rows)[number]) => number): number => rows.reduce((total, row) => total + of(row), 0);
  return { encoded: sum((row) => row.health?.encodedMessages ?? 0), fallbacks: sum((row) => row.health?.rawFallbacks ?? 0) };
}
