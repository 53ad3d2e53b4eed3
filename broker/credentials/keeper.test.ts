import { X509Certificate } from 'node:crypto';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readCredentials } from './credentials.js';
import type { EnrolmentAddress } from './enrolment-client.js';
import type { EnrolmentServer } from './enrolment-server.js';
import { GatewayClock } from './gateway-clock.js';
import { CredentialKeeper, type KeeperOptions } from './keeper.js';
import { isDue, LIFETIME_MS, renewalDueMs } from './lifetime.js';
import { DAY, HandClock, invite, joinAt, NOON, serve, type TestAuthority, testAuthority } from './test-authority.js';

let world: TestAuthority;
let server: EnrolmentServer;
let at: EnrolmentAddress;
let directory: string;
const keepers: CredentialKeeper[] = [];
beforeEach(async () => {
  world = await testAuthority();
  server = await serve(world.authority);
  at = { host: '127.0.0.1', port: server.port };
  directory = path.join(world.directory, 'pi');
  await joinAt(server, directory, await invite(world.authority, 'pi-1'));
});
afterEach(async () => {
  await Promise.all(keepers.splice(0).map((keeper) => keeper.stop()));
  await server.stop();
  await world.stop();
});

async function keeper(options: Partial<KeeperOptions> = {}): Promise<CredentialKeeper> {
  const made = new CredentialKeeper({
    directory,
    credentials: await readCredentials(directory),
    clock: new GatewayClock(world.clock.read, () => performance.now()),
    gateways: () => [at],
    random: () => 0.5,
    ...options,
  });
  keepers.push(made);
  return made;
}

describe('the keeper', () => {
  it('renews at two thirds of a life, not before, and tells who asked', async () => {
    const kept = await keeper();
    const before = kept.current;
    let changes = 0;
    kept.onChange(() => changes++);
    await kept.look();
    expect(kept.current).toBe(before);
    world.clock.nowMs += 19 * DAY;
    await world.authority.source.look();
    await kept.look();
    expect(kept.current).toBe(before);
    world.clock.nowMs += 2 * DAY;
    await kept.look();
    expect(kept.current.serial).not.toBe(before.serial);
    expect(kept.current.identity).toEqual(before.identity);
    expect(await readCredentials(directory)).toEqual(kept.current);
    expect(changes).toBe(1);
  });

  it('goes by the time of the gateway, not by a clock that says 1970 or next year', async () => {
    for (const systemMs of [0, NOON + 300 * DAY]) {
      const system = new HandClock(systemMs);
      const kept = await keeper({ clock: new GatewayClock(system.read) });
      const before = kept.current;
      await kept.look();
      expect(kept.current).toBe(before);
      expect(Math.abs(kept.nowMs() - NOON)).toBeLessThan(10_000);
    }
  });

  it('keeps what it has while no gateway answers, also past its end, and renews when one does', async () => {
    const said: string[] = [];
    const kept = await keeper({ log: (line) => said.push(line), limits: { deadlineMs: 2_000 } });
    const before = kept.current;
    await server.stop();
    world.clock.nowMs += 60 * DAY;
    await kept.look();
    await kept.look();
    expect(kept.current).toBe(before);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain('not renewed');
    await world.authority.source.look();
    server = await serve(world.authority);
    at = { host: '127.0.0.1', port: server.port };
    await kept.look();
    expect(kept.current.notAfterMs).toBe(world.clock.nowMs + LIFETIME_MS);
  });

  it('asks the next gateway when the first is not there, and takes no other name from any', async () => {
    const kept = await keeper({ gateways: () => [{ host: '127.0.0.1', port: 1 }, at] });
    world.clock.nowMs += 25 * DAY;
    await world.authority.source.look();
    await kept.look();
    expect(new X509Certificate(kept.current.certificate).subject).toContain('CN=pi-1');
    expect(kept.current.notAfterMs).toBe(world.clock.nowMs + LIFETIME_MS);
  });

  it('renews once when many ask at once', async () => {
    const kept = await keeper();
    world.clock.nowMs += 25 * DAY;
    await world.authority.source.look();
    await Promise.all(Array.from({ length: 10 }, () => kept.look()));
    const renewals = (await world.authority.history(100)).filter(({ event }) => event === 'renewed');
    expect(renewals).toHaveLength(1);
  });

  it('takes up what another process has renewed in the same folder', async () => {
    const [one, other] = [await keeper(), await keeper({ gateways: () => [] })];
    world.clock.nowMs += 25 * DAY;
    await world.authority.source.look();
    await one.look();
    expect(other.current.serial).not.toBe(one.current.serial);
    await other.look();
    expect(other.current).toEqual(one.current);
  });

  it('renews a folder that processes share so that it can be read, whoever is first', async () => {
    const shared = await Promise.all(Array.from({ length: 4 }, () => keeper()));
    world.clock.nowMs += 25 * DAY;
    await world.authority.source.look();
    await Promise.all(shared.map((kept) => kept.look()));
    const { notAfterMs, serial } = await readCredentials(directory);
    expect(notAfterMs).toBe(world.clock.nowMs + LIFETIME_MS);
    await Promise.all(shared.map((kept) => kept.look()));
    expect(new Set(shared.map(({ current }) => current.serial))).toEqual(new Set([serial]));
  });

  it('that was revoked says so, and keeps asking for nothing else', async () => {
    const said: string[] = [];
    const kept = await keeper({ log: (line) => said.push(line), gateways: () => [at, at, at] });
    await world.authority.revoke('pi-1', 'stolen', 'test');
    world.clock.nowMs += 25 * DAY;
    await world.authority.source.look();
    await kept.look();
    expect(said).toHaveLength(1);
    expect(said[0]).toContain('revoked');
  });

  it('takes the time at its start: by a clock twelve days behind, a certificate that is over would seem good', async () => {
    world.clock.nowMs += 31 * DAY;
    await world.authority.source.look();
    const kept = await keeper({ clock: new GatewayClock(() => world.clock.nowMs - 12 * DAY) });
    expect(kept.isDue()).toBe(false);
    kept.start();
    await expect.poll(() => kept.current.notAfterMs, { timeout: 20_000 }).toBe(world.clock.nowMs + LIFETIME_MS);
  });

  it('says nothing of a gateway that it only wanted the time from', async () => {
    const said: string[] = [];
    const kept = await keeper({ gateways: () => [{ host: '127.0.0.1', port: 1 }], log: (line) => said.push(line) });
    await kept.look();
    expect(said).toEqual([]);
  });

  it('renews by itself, and stops in the middle of it', async () => {
    const kept = await keeper({ everyMs: 20 });
    kept.start();
    world.clock.nowMs += 25 * DAY;
    await world.authority.source.look();
    await expect.poll(() => kept.current.notAfterMs, { timeout: 20_000 }).toBe(world.clock.nowMs + LIFETIME_MS);
    await kept.stop();
    await kept.stop();
  });
});

describe('the time of the gateway', () => {
  it('is counted from the middle of the way there and back, on a clock that does not jump', () => {
    const [system, monotonic] = [new HandClock(0), new HandClock(500)];
    const clock = new GatewayClock(system.read, monotonic.read);
    expect(clock.nowMs()).toBe(0);
    expect(clock.skew).toBeUndefined();
    const mark = clock.mark();
    monotonic.nowMs += 100;
    clock.learn(NOON, mark);
    expect(clock.nowMs()).toBe(NOON + 50);
    system.nowMs = 7e12;
    monotonic.nowMs += 1000;
    expect(clock.nowMs()).toBe(NOON + 1050);
    expect(clock.skew).toEqual({ ms: 7e12 - NOON - 1050, errorMs: 50 });
  });
});

describe('a life', () => {
  it('ends by being renewed at two thirds of it, a fleet spread over a day', () => {
    const dates = { notBeforeMs: NOON - DAY, notAfterMs: NOON + LIFETIME_MS };
    expect(renewalDueMs(dates.notAfterMs, 0)).toBe(NOON + 20 * DAY);
    expect(renewalDueMs(dates.notAfterMs, 1)).toBe(NOON + 19 * DAY);
    expect(isDue(dates, NOON + 19.9 * DAY, 0)).toBe(false);
    expect(isDue(dates, NOON + 20 * DAY, 0)).toBe(true);
    expect(isDue(dates, NOON + 99 * DAY, 0)).toBe(true);
    expect(isDue(dates, 0, 0)).toBe(true);
  });
});
