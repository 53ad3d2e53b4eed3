/**
 * A cluster at work: what agents and gateway do for every frame has been compiled by V8 before anything is measured. The first hundreds of frames of a fresh process
 * cost it 1.2 to 1.8 ms of compiling each (node-agent/README.md), which is a fifth of what it does there, and none of what it does for the rest of a day.
 */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { GraphBuilder } from '../../models/onnx/build.js';
import type { Cluster } from './cluster.js';

/** Until compiling is a small part of an agent's CPU: 0.3 to 0.5 ms a frame of four stages are left. */
export const FRAMES_AT_WORK = 400;
const DEPLOYMENT = 'at-work';
const CHANNELS = 8;
/** Height and width: each of many agents has rows of its own. */
const SIZE = 96;
const CONVOLUTIONS = 4;
const KERNEL = 3;

/** Small convolutions, so that nearly all that a frame costs is what stands around the engine. */
function network(): GraphBuilder {
  const g = new GraphBuilder({ opset: 17 });
  let x = g.input('x', 'float32', [1, CHANNELS, SIZE, SIZE]);
  const dims = [CHANNELS, CHANNELS, KERNEL, KERNEL];
  const count = dims.reduce((a, b) => a * b);
  for (let i = 0; i < CONVOLUTIONS; i++) {
    const weights = g.weight(`w${i}`, 'float32', dims, new Float32Array(count).fill(1 / count));
    x = g.node1('Relu', [g.node1('Conv', [x, weights], { kernel_shape: [KERNEL, KERNEL], pads: [1, 1, 1, 1] })]);
  }
  g.output(x, 'float32', [1, CHANNELS, SIZE, SIZE]);
  return g;
}

/** Frames of a small network over all agents, under their limits. Throws PLAN_NOT_POSSIBLE, FRAME_FAILED. */
export async function putToWork(cluster: Pick<Cluster, 'testbed' | 'client' | 'deploy' | 'load'>, models: string): Promise<void> {
  const file = path.join(models, `${DEPLOYMENT}.onnx`);
  if (!existsSync(file)) {
    await mkdir(models, { recursive: true });
    await network().write(file);
  }
  const agents = cluster.testbed.agents.length;
  await cluster.deploy({ name: DEPLOYMENT, model: file, cut: agents > 1 ? `rows:${agents}` : '', objective: 'latency' });
  await cluster.load({ deployment: DEPLOYMENT, frames: FRAMES_AT_WORK, inFlight: 4 });
  await cluster.client.undeploy(DEPLOYMENT);
}
