/** An agent hangs, and its supervisor or a person starts it anew elsewhere under the same name: with real processes. */
import { afterEach, beforeAll, expect, it } from 'vitest';
import { TOLERANCE } from '../../models/slicing/verify.js';
import type { Child } from '../children.js';
import { Load, Net, Processes, until } from './fixture.js';

let net: Net;
const processes = new Processes(() => net.folder);
beforeAll(async () => {
  net = await Net.build('resnet18', { scale: 0.125, size: 64, classes: 10, seed: 5 });
  return () => net.remove();
}, 150_000);
afterEach(() => processes.end(), 60_000);

it('a name goes to the new process once the one that hangs is silent; that one ends when it wakes up, and no frame is lost', {
  timeout: 120_000,
}, async () => {
  const gateway = processes.start('gateway', ['gateway', '--insecure', '--port', '0', '--host', '127.0.0.1', '--hidden', '--hold-plans']);
  const url = String((await gateway.ready).url);
  const said: string[] = [];
  const [, old] = await processes.agents(url, ['a', 'b'], said);
  const client = await processes.connect(url, 2);
  await client.deploy({ name: 'net', model: net.model, planner: 'replicas', objective: 'throughput' });
  const b = async () => (await client.status()).agents.find(({ agent }) => agent === 'b');
  const nonce = (await b())?.health?.nonce;
  const load = new Load(client, 'net', net);
  await load.more(10);

  old?.process.kill('SIGSTOP');
  const fromMs = performance.now();
  // Refused as long as the old one may be alive: its supervisor starts it again and again.
  let starts = 0;
  let fresh: Child | undefined;
  const again: string[] = [];
  await until('the new process to have the name', async () => {
    if (fresh === undefined || fresh.process.exitCode !== null) fresh = processes.agent(url, 'b', again, `b-${++starts}`);
    const now = await b();
    return now?.state === 'ready' && now.health?.nonce !== nonce;
  });
  const takenMs = performance.now() - fromMs;
  const taken = (await b())?.health?.nonce;
  await until('it to have seats', async () => {
    const [deployment] = (await client.status()).deployments;
    return (
      deployment?.state === 'serving' &&
      deployment.plan?.seats.some(({ agent }) => agent === 'b') === true &&
      (await b())?.state === 'ready'
    );
  });
  await load.more(10);

  old?.process.kill('SIGCONT');
  expect((await old?.ended)?.code).not.toBe(0);
  expect(said.join('\n')).toContain('AGENT_NAME_TAKEN');
  await load.more(10);
  await load.stop();
  console.log(
    `the name was another's after ${Math.round(takenMs)} ms and ${starts} starts; ${load.frames} results, longest gap ${Math.round(load.gapMs())} ms, ` +
      `slowest frame ${Math.round(load.slowestMs)} ms`,
  );
  expect(load.errors).toEqual([]);
  expect(load.worst).toBeLessThanOrEqual(TOLERANCE);
  expect(await b()).toMatchObject({ state: 'ready', health: { nonce: taken } });
  expect(fresh?.process.exitCode).toBeNull();
});
