/** For tests of a whole gateway with scripted agents: what is started and ended, frames and what they must give, and waiting for what comes by itself. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import { isChairError } from '../broker/errors.js';
import type { Tensor } from '../broker/tensor.js';
import { ChairClient, type ClientOptions } from './client.js';
import { Gateway, type GatewayOptions } from './gateway.js';
import { ROWS, ScriptedAgent, type ScriptedOptions, scriptedAnswer, scriptedSource } from './scripted-agent.js';

export class TestCluster {
  readonly #running: (() => Promise<unknown>)[] = [];

  /** Called once by a test file: what a test starts is ended after it, the last first. */
  static forEachTest(): TestCluster {
    const made = new TestCluster();
    afterEach(async () => {
      for (const stop of made.#running.splice(0).reverse()) await stop();
    });
    return made;
  }

  /** Ends with the test. */
  also(stop: () => Promise<unknown>): void {
    this.#running.push(stop);
  }

  async folder(): Promise<string> {
    const made = await mkdtemp(join(tmpdir(), 'chair-cluster-'));
    this.also(() => rm(made, { recursive: true, force: true }));
    return made;
  }

  /** With a broker of its own and scripted models, unless the options say otherwise. */
  async gateway(options: Partial<GatewayOptions> = {}): Promise<Gateway> {
    const gateway = new Gateway({
      cluster: 'test',
      stateDirectory: options.stateDirectory ?? (await this.folder()),
      broker: { host: '127.0.0.1', port: 0 },
      laneHost: '127.0.0.1',
      source: scriptedSource(),
      ...options,
    });
    this.also(() => gateway.stop());
    await gateway.start();
    return gateway;
  }

  async agent(brokerUrl: string, name: string, options: Partial<ScriptedOptions> = {}): Promise<ScriptedAgent> {
    const agent = await ScriptedAgent.start({ brokerUrl, cluster: 'test', name, ...options });
    this.also(() => agent.stop());
    return agent;
  }

  async client(brokerUrl: string, options: Partial<ClientOptions> = {}): Promise<ChairClient> {
    const client = await ChairClient.connect({ brokerUrl, cluster: 'test', ...options });
    this.also(() => client.close());
    return client;
  }
}

export function untilReady(gateway: Gateway, count: number): Promise<void> {
  return until(`${count} agents are ready`, () => gateway.status().agents.filter(({ state }) => state === 'ready').length === count);
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  for (const end = performance.now() + timeoutMs; performance.now() < end; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`not within ${timeoutMs} ms: ${what}`);
}

/** Of each seed another one. */
export function frame(seed: number): { in: Tensor } {
  const values = Float32Array.from({ length: ROWS * 256 }, (_, i) => ((i * 7 + seed * 13) % 101) - 50);
  return { in: { dtype: 'float32', dims: [ROWS, 256], bytes: new Uint8Array(values.buffer) } };
}

export function values(tensor: Tensor | undefined): number[] {
  return [...new Float32Array(tensor?.bytes.buffer ?? new ArrayBuffer(0))];
}

/** What the scripted model of three blocks makes of `frame(seed)`. */
export function answer(seed: number): number[] {
  return [...scriptedAnswer(frame(seed).in)];
}

export async function codeOf(action: Promise<unknown>): Promise<string> {
  try {
    await action;
    return 'no error';
  } catch (error) {
    return isChairError(error) ? error.code : String(error);
  }
}
