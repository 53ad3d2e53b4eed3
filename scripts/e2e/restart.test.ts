/** The middle falls, with real processes: a gateway that is killed and started again, and a scheduler that stands still while another one takes its place. */
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { StatusReport } from '../../broker/messages.js';
import { type BrokerServer, startBroker } from '../../broker/server.js';
import { TOLERANCE } from '../../models/slicing/verify.js';
import type { Child } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';
import { Load, Net, Processes } from './fixture.js';

const WITHIN = { timeout: 120_000 };

/** Which process each agent is. */
const processesOf = ({ agents }: StatusReport): (string | undefined)[] =>
  agents.toSorted((a, b) => a.agent.localeCompare(b.agent)).map(({ health }) => health?.nonce);

let net: Net;
const processes = new Processes(() => net.folder);
beforeAll(async () => {
  net = await Net.build('resnet18', { scale: 0.125, size: 64, classes: 10, seed: 5 });
  return () => net.remove();
}, 150_000);
afterEach(() => processes.end(), 60_000);

describe('a gateway that is killed under load', () => {
  it('comes back with its deployment: no frame is lost, agents fetch and load nothing, the model is not needed', WITHIN, async () => {
    const lines: string[] = [];
    const gatewayLines: string[] = [];
    const decide = (port: number): Child =>
      processes.start(
        'gateway',
        ['gateway', '--insecure', '--port', `${port}`, '--host', '127.0.0.1', '--hidden', '--hold-plans'],
        gatewayLines,
      );
    const first = decide(0);
    const url = String((await first.ready).url);
    await processes.agents(url, ['a', 'b'], lines);
    const client = await processes.connect(url, 2);
    await client.deploy({ name: 'net', model: net.model, cut: 'rows:2' });
    const before = await client.status();
    const load = new Load(client, 'net', net);
    await load.more(10);
    first.process.kill('SIGKILL');
    await first.ended;
    const saidBefore = lines.length;
    const second = decide(Number(new URL(url).port));
    await second.ready;
    await load.more(10);
    await load.stop();
    console.log(
      `${load.frames} results, longest gap ${Math.round(load.gapMs())} ms, largest relative difference ${load.worst.toExponential(2)}`,
    );
    expect(load.errors).toEqual([]);
    expect(load.worst).toBeLessThanOrEqual(TOLERANCE);
    const after = await client.status();
    expect(after.term).toBe(before.term + 1);
    expect(after.deployments[0]?.plan?.seats).toEqual(before.deployments[0]?.plan?.seats);
    expect(after.deployments[0]).toMatchObject({ state: 'serving', failed: 0 });
    expect(gatewayLines.filter((line) => line.includes('planned'))).toHaveLength(1);
    // Seats of the new term are ready before those of the old one are given back: the sessions are the same ones.
    const said = lines.slice(saidBefore).filter((line) => /ready|given back/.test(line));
    expect(said.filter((line) => line.includes('ready'))).toHaveLength(2);
    // Nor was an agent started anew.
    expect(processesOf(after)).toEqual(processesOf(before));
    expect(processesOf(after)).not.toContain(undefined);
  });
});

describe('a scheduler that stands still while another one takes its place', () => {
  it('steps down when it wakes up: nothing that the other deployed is touched, and agents obey only the other', WITHIN, async () => {
    const broker: BrokerServer = await startBroker({ host: '127.0.0.1', port: 0 });
    processes.also(() => broker.stop());
    const said: Record<string, string[]> = { old: [], new: [], agents: [] };
    const decide = (name: string): Child =>
      processes.start(
        name,
        ['scheduler', '--insecure', '--broker', broker.url, '--host', '127.0.0.1', '--hidden', '--hold-plans'],
        said[name],
      );
    const old = decide('old');
    await old.ready;
    await processes.agents(broker.url, ['c', 'd'], said.agents);
    const client = await processes.connect(broker.url, 2);
    await client.deploy({ name: 'net', model: net.model, cut: 'rows:2' });
    const frames = Array.from({ length: 4 }, (_, i) => client.infer('net', net.input(i)));
    await Promise.all(frames);
    const oldTerm = (await client.status()).term;

    old.process.kill('SIGSTOP');
    // It counts its terms in a folder of its own, and comes to the same one: only agents know better.
    const next = decide('new');
    await next.ready;
    await untilAgentsReady(client, 2);
    await client.deploy({ name: 'net', model: net.model, cut: 'stages:2' });
    const status = await client.status();
    expect(status.term).toBeGreaterThan(oldTerm);
    const load = new Load(client, 'net', net);
    await load.more(10);
    old.process.kill('SIGCONT');
    const { code } = await old.ended;
    expect(code).not.toBe(0);
    expect(said.old?.join('\n')).toContain('CLUSTER_TAKEN');
    await load.more(10);
    await load.stop();
    expect(load.errors).toEqual([]);
    expect(load.worst).toBeLessThanOrEqual(TOLERANCE);
    const after = await client.status();
    expect(after).toMatchObject({ term: status.term, deployments: [{ state: 'serving', epoch: status.deployments[0]?.epoch, failed: 0 }] });
    expect(said.new?.join('\n')).not.toContain('CLUSTER_TAKEN');
    expect(next.process.exitCode).toBeNull();
  });
});
