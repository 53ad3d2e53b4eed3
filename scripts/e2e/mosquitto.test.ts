import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { allocTensor } from '../../broker/tensor.js';
import { installed, MOSQUITTO } from '../../broker/test-brokers.js';
import { buildZoo } from '../../models/zoo/index.js';
import { ChairClient } from '../../scheduler/client.js';
import { LocalCluster } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';

describe.runIf(installed('mosquitto'))('a cluster on a broker of others (Mosquitto)', () => {
  it('serves a cut model, also to a client that sends its frames through the broker', { timeout: 60_000 }, async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'mc-mosquitto-'));
    const broker = await MOSQUITTO.start();
    const cluster = await LocalCluster.start({ agents: 2, threads: 1, brokerUrl: broker.url, directory: path.join(folder, 'state') });
    const client = await ChairClient.connect({ brokerUrl: broker.url, cluster: 'default', relayOnly: true });
    try {
      await untilAgentsReady(client, 2);
      const model = path.join(folder, 'net.onnx');
      await buildZoo('resnet18', model, { scale: 0.1, size: 32, classes: 5 });
      await client.deploy({ name: 'net', model, cut: 'rows:2' });
      const { deployments } = await client.status('net');
      const input = deployments[0]?.inputs[0];
      const frame = { [input?.name ?? '']: allocTensor('float32', input?.dims ?? []) };
      for (let i = 0; i < 5; i++) {
        const { outputs } = await client.infer('net', frame);
        expect(Object.values(outputs)[0]?.dims).toEqual([1, 5]);
      }
      expect(client.lane()).not.toBe('direct');
    } finally {
      await client.close();
      await cluster.stop();
      await broker.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
