/** From the gateway's invitation over the card to the certificate: the token that a flashed card carries lets its agent in, once. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { enrol } from '../../broker/credentials/enrolment.js';
import { GatewayClock } from '../../broker/credentials/gateway-clock.js';
import { Gateway } from '../../scheduler/gateway.js';
import { scriptedSource } from '../../scheduler/scripted-agent.js';
import { makeBundle } from '../bundle/make.js';
import { smallProgram } from '../bundle/test-bundle.js';
import { type Settings, settingsSchema } from '../config.js';
import { flash } from './flash.js';
import { FULL } from './test-card.js';
import { armProgram, IMAGE_TOOLS, lacking, makeImage, sameImage, testFolder } from './test-image.js';
import { inviter } from './tokens.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking(...IMAGE_TOOLS);
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function start(): Promise<{ gateway: Gateway; settings: Settings; folder: string }> {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const gateway = new Gateway({
    cluster: 'home',
    source: scriptedSource(),
    broker: { host: '127.0.0.1', port: 0 },
    laneHost: '127.0.0.1',
    stateDirectory: path.join(folder, 'state'),
    gatehouse: { host: '127.0.0.1', port: 0 },
  });
  ends.push(() => gateway.stop());
  await gateway.start();
  const credentials = path.join(folder, 'state', 'credentials', 'operator');
  const settings = settingsSchema.parse({ cluster: 'home', broker: gateway.brokerUrl, credentials });
  return { gateway, settings, folder };
}

const FLAGS = { ttl: '7d', hold: false, replace: false };

describe.skipIf(absent !== '')(`a card of a cluster with trust${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  it('carries a token that is good for its agent, once, for seven days', async () => {
    const { gateway, settings, folder } = await start();
    const image = makeImage(folder);
    const bundle = path.join(folder, 'agent.tgz');
    await makeBundle({ arch: 'arm64', node: { from: armProgram(folder) }, dist: smallProgram(folder), out: bundle });
    const invite = await inviter(FLAGS, settings, ['pi-1']);
    if (invite === undefined) throw new Error('a cluster with trust gives tokens');
    const out = path.join(folder, 'pi-1.img');
    const before = Date.now();
    const [card] = await flash(
      { image: image.file, bundle, targets: [{ card: { ...FULL, cluster: 'home' }, out }] },
      { invite, confirm: async () => false, progress: () => () => {}, note: () => {}, nowMs: Date.now },
    );
    const days = ((card?.tokenExpiresMs ?? 0) - before) / 86_400_000;
    expect(days).toBeGreaterThan(6.99);
    expect(days).toBeLessThan(7.01);
    expect(sameImage(image, out).read('musical-chair/agent.yaml')).toContain(`192.168.1.10:${gateway.gatehouse?.port}`);
    const token = sameImage(image, out).read('musical-chair/token').trim();
    expect(readFileSync(out).indexOf(token)).toBe(readFileSync(out).lastIndexOf(token));
    const at = { host: '127.0.0.1', port: gateway.gatehouse?.port ?? 0 };
    const join = (name: string) => enrol({ directory: path.join(folder, name), token, gateway: at, clock: new GatewayClock() });
    expect((await join('pi')).identity).toEqual({ cluster: 'home', role: 'agent', name: 'pi-1' });
    // A copy of the card in another machine has another key.
    await expect(join('thief')).rejects.toThrow(expect.objectContaining({ code: 'TOKEN_USED' }));
    await expect(inviter(FLAGS, settings, ['pi-1', 'pi-2'])).rejects.toThrow(
      expect.objectContaining({ code: 'IDENTITY_TAKEN', message: expect.stringContaining('pi-1') }),
    );
    const again = await inviter({ ...FLAGS, replace: true }, settings, ['pi-1', 'pi-2']);
    expect((await again?.('pi-1'))?.token).toMatch(/^mc1\./);
  });

  it('is not begun when the gateway cannot be asked', async () => {
    const { gateway, settings } = await start();
    await gateway.stop();
    await expect(inviter(FLAGS, settings, ['pi-1'])).rejects.toThrow(expect.objectContaining({ code: 'BROKER_UNREACHABLE' }));
    await expect(inviter({ ...FLAGS, ttl: 'soon' }, settings, ['pi-1'])).rejects.toThrow('--ttl is wrong');
    expect(await inviter(FLAGS, { ...settings, insecure: true }, ['pi-1'])).toBeUndefined();
    await expect(inviter({ ...FLAGS, hold: true }, { ...settings, insecure: true }, [])).rejects.toThrow(
      '--hold and --insecure contradict',
    );
    await expect(inviter({ ...FLAGS, replace: true, tokenFile: 'x' }, settings, [])).rejects.toThrow(
      '--replace and --token-file contradict',
    );
    await expect(inviter({ ...FLAGS, tokenFile: 'x' }, { ...settings, insecure: true }, [])).rejects.toThrow('--token-file and --insecure');
  });
});
