import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Authority } from '../../broker/credentials/authority.js';
import type { AgentStatus, Health, LaneHealth, LinkStatus, StatusReport } from '../../broker/messages.js';
import { type CertificateFacts, judgeCertificate, lookAtCertificate, openKeys } from './certificates.js';
import { judgeAgent, judgeGateway, judgeLanes } from './cluster.js';
import { bad, findingsText, note, ok } from './findings.js';
import { judgeClock, judgeDisk, judgeMemory, judgeNode, lookAtMachine } from './machine.js';
import { holderOfPort, listeningInodes, lookAtPort } from './ports.js';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const each of undo.splice(0)) await each();
});

function lane(peer: string, kind: LaneHealth['lane'], why = ''): LaneHealth {
  const idle = { waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 };
  return {
    peer,
    lane: kind,
    why,
    bytesSent: 0,
    messagesSent: 0,
    sendMs: 0,
    receivedBytesPerSecond: 0,
    receivedSamples: 0,
    roundTripMs: 0,
    ...idle,
  };
}

function agent(name: string, extra: Partial<AgentStatus> = {}, health: Partial<Health> = {}): AgentStatus {
  return {
    ...({ agent: name, state: 'ready', why: '', softwareVersion: '1.0', heldMs: 0 } as AgentStatus),
    health: { memoryFreeBytes: 1e9, temperature: 45, throttled: -1, damaged: 0, lanes: [], ...health } as unknown as Health,
    ...extra,
  };
}

const link = (from: string, to: string, extra: Partial<LinkStatus> = {}): LinkStatus => ({
  ...{ from, to, lane: 'direct', bytesPerSecond: 11e6, latencyMs: 0.4, spread: 0, source: 'measured', ageMs: 0, problem: '' },
  ...extra,
});

describe('what doctor thinks of a machine', () => {
  it('names the system that has no engine', () => {
    expect(judgeNode({ version: 'v20.1.0', platform: 'linux', arch: 'arm' })).toMatchObject({
      grade: 'bad',
      todo: expect.stringContaining('64-bit'),
    });
    expect(judgeNode({ version: 'v18.1.0', platform: 'linux', arch: 'arm64' }).grade).toBe('bad');
    expect(judgeNode({ version: 'v22.1.0', platform: 'linux', arch: 'arm64' }).grade).toBe('ok');
  });

  it.each([
    [50e6, true, 'bad', 'Stop other programs'],
    [2e9, false, 'note', 'cgroup_enable=memory'],
    [200e6, true, 'note', 'Large models'],
    [2e9, true, 'ok', ''],
    [2e9, undefined, 'ok', ''],
  ] as const)('weighs %d bytes of memory, limits %s, as %s', (freeBytes, limits, grade, todo) => {
    expect(judgeMemory({ limitBytes: 4e9, freeBytes, limits })).toMatchObject({ grade, todo: expect.stringContaining(todo) });
  });

  it('looks at a disk for room, for its rights, and for what a restart forgets', () => {
    const disk = { directory: '/x', freeBytes: 5e9, totalBytes: 9e9, refused: '', volatile: false };
    expect(judgeDisk('gateway', disk).grade).toBe('ok');
    expect(judgeDisk('gateway', { ...disk, freeBytes: 1e8 }).grade).toBe('bad');
    expect(judgeDisk('gateway', { ...disk, freeBytes: 5e8 }).grade).toBe('note');
    expect(judgeDisk('gateway', { ...disk, volatile: true })).toMatchObject({
      grade: 'note',
      todo: expect.stringContaining('--directory'),
    });
    expect(judgeDisk('gateway', { ...disk, refused: 'EACCES' })).toMatchObject({ grade: 'bad', todo: expect.stringContaining('chown') });
  });

  it('knows a clock that was never set, one an hour off, and one that is right', () => {
    const now = { nowMs: Date.UTC(2027, 1, 1), follows: true, ahead: { ms: 300, errorMs: 5 } };
    expect(judgeClock(now)).toMatchObject({ grade: 'ok', text: expect.stringContaining("0.30 s ahead of the gateway's") });
    expect(judgeClock({ ...now, nowMs: 0 })).toMatchObject({ grade: 'bad', text: expect.stringContaining('1970') });
    expect(judgeClock({ ...now, ahead: { ms: -3_600_000, errorMs: 5 } })).toMatchObject({
      grade: 'bad',
      text: expect.stringContaining('60 min behind'),
    });
    expect(judgeClock({ ...now, ahead: { ms: 20_000, errorMs: 5 } }).grade).toBe('note');
    expect(judgeClock({ ...now, ahead: { ms: 3000, errorMs: 4000 } }).grade).toBe('ok');
    expect(judgeClock({ ...now, follows: false }).grade).toBe('note');
  });

  it('runs the engine here, and says something of everything', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'mc-doctor-'));
    undo.push(() => rmSync(folder, { recursive: true, force: true }));
    const findings = await lookAtMachine({
      ahead: undefined,
      folders: [{ area: 'gateway', directory: path.join(folder, 'not', 'there') }],
    });
    expect(findings.map(({ check }) => check)).toEqual(['node', 'engine', 'memory', 'clock', 'disk']);
    expect(findings[1]).toMatchObject({ grade: 'ok', text: expect.stringMatching(/GMAC\/s/) });
    expect(findings[4]?.text).toMatch(/free of/);
    for (const { grade, todo } of findings) expect(todo === '').toBe(grade === 'ok');
  });
});

describe('what doctor thinks of certificates', () => {
  const day = 86_400_000;
  const nowMs = Date.UTC(2027, 1, 1);
  const facts: CertificateFacts = {
    identity: { cluster: 'home', role: 'agent', name: 'pi-1' },
    wanted: { cluster: 'home', role: 'agent', name: 'pi-1' },
    ...{ fromMs: nowMs - 10 * day, toMs: nowMs + 20 * day, nowMs },
  };

  it.each<[string, Partial<CertificateFacts>, string, string]>([
    ['one that is good', {}, 'ok', 'good for 20 days'],
    ['one that was not renewed', { toMs: nowMs + 3 * day }, 'note', '3 days'],
    ['one that is over', { toMs: nowMs - 3 * day }, 'bad', 'expired 3 days ago'],
    ['one of the future', { fromMs: nowMs + day }, 'bad', 'not valid yet'],
    ["another agent's", { wanted: { cluster: 'home', role: 'agent', name: 'pi-2' } }, 'bad', 'not of agent pi-2'],
    ["another cluster's", { wanted: { cluster: 'office', role: 'agent', name: 'pi-1' } }, 'bad', "'office'"],
    ["a viewer's where an agent is to run", { identity: { cluster: 'home', role: 'viewer', name: 'pi-1' } }, 'bad', 'viewer pi-1'],
  ])('finds %s', (_, extra, grade, text) => {
    const finding = judgeCertificate('agent pi-1', { ...facts, ...extra });
    expect(finding).toMatchObject({ grade, text: expect.stringContaining(text) });
    expect(finding.todo === '').toBe(grade === 'ok');
  });

  it('looks at what an authority really made: certificates, keys that are open, folders without any', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'mc-doctor-ca-'));
    undo.push(() => rmSync(folder, { recursive: true, force: true }));
    const authority = await Authority.open({ directory: folder, cluster: 'home' });
    const directory = path.join(folder, 'gateway');
    const options = {
      area: 'gateway',
      directory,
      wanted: { cluster: 'home', role: 'gateway' },
      join: 'Start it.',
      nowMs: Date.now(),
    } as const;
    expect(await lookAtCertificate(options)).toMatchObject([
      { grade: 'ok', text: expect.stringContaining("of cluster 'home', good for 29 days") },
    ]);
    expect(await openKeys(folder)).toEqual([]);
    if (process.platform !== 'win32') {
      chmodSync(path.join(directory, 'key.pem'), 0o644);
      expect(await lookAtCertificate(options)).toMatchObject([
        { grade: 'ok' },
        { grade: 'bad', check: 'keys', todo: expect.stringContaining('chmod 600') },
      ]);
    }
    expect(await lookAtCertificate({ ...options, directory: path.join(folder, 'none') })).toMatchObject([
      { grade: 'note', todo: 'Start it.' },
    ]);
    writeFileSync(path.join(directory, 'cert.pem'), 'torn');
    expect(await lookAtCertificate(options)).toMatchObject([{ grade: 'bad', text: expect.stringContaining('CREDENTIALS_DAMAGED') }]);
    await authority.stop();
  });
});

describe('ports', () => {
  const listening = async (): Promise<number> => {
    const server: Server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    undo.push(() => new Promise((resolve) => server.close(resolve)));
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  };

  it('that are taken are said with who has them', async () => {
    const port = await listening();
    const check = { what: 'broker port', host: '127.0.0.1', port, setting: 'gateway.port' };
    const finding = await lookAtPort('gateway', check);
    expect(finding).toMatchObject({ grade: 'bad', todo: expect.stringContaining('gateway.port') });
    if (process.platform === 'linux') {
      expect(finding.text).toContain(`process ${process.pid}`);
      expect(holderOfPort(port)).toContain(String(process.pid));
    }
    for (const each of undo.splice(0)) await each();
    expect((await lookAtPort('gateway', check)).grade).toBe('ok');
    expect((await lookAtPort('gateway', { ...check, port: 0 })).grade).toBe('ok');
  });

  it('on an address of another machine cannot be had', async () => {
    const finding = await lookAtPort('gateway', { what: 'x', host: '192.0.2.1', port: 1, setting: 's' });
    expect(finding.grade).toBe('bad');
  });

  it('are found in the table of the kernel', () => {
    const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:075B 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0`;
    expect(listeningInodes(table, 1883)).toEqual(['4711']);
    expect(listeningInodes(table, 1884)).toEqual([]);
  });
});

describe('what doctor thinks of a cluster', () => {
  it('has one line for an agent that is well', () => {
    const a = agent('a');
    expect(judgeAgent(a, [a, agent('b')])).toMatchObject([{ grade: 'ok', area: 'agent a', text: expect.stringContaining('45 C') }]);
  });

  it.each<[string, AgentStatus, string, string]>([
    ['is lost', agent('a', { state: 'lost', why: 'no health' }), 'bad', 'no health'],
    ['was stopped', agent('a', { state: 'stopped' }), 'note', 'in order'],
    ['is refused', agent('a', { state: 'refused', why: 'another version' }), 'bad', 'another version'],
    ['is hot', agent('a', {}, { temperature: 84 }), 'note', '84 C'],
    ['has too weak a power supply', agent('a', {}, { throttled: 0x50005 }), 'note', 'under-voltage'],
    ['has no memory', agent('a', {}, { memoryFreeBytes: 5e6 }), 'bad', '5.0 MB'],
    ['has a card that fails', agent('a', {}, { damaged: 3 }), 'bad', '3 files'],
    ['has said nothing yet', agent('a', { health: null }), 'note', 'nothing'],
    ['is of another version', agent('a', { softwareVersion: '0.9' }), 'note', '1.0'],
  ])('finds an agent that %s', (_, a, grade, text) => {
    const [first, ...rest] = judgeAgent(a, [a, agent('b')]);
    expect(first).toMatchObject({ grade, text: expect.stringContaining(text) });
    expect(first?.todo).not.toBe('');
    expect(rest).toEqual([]);
  });

  it('passes on what the gateway complains of, and what does not serve', () => {
    const report = {
      ...{ cluster: 'c', uptimeMs: 5000, problems: ['no room for plans'], agents: [] },
      deployments: [{ name: 'net', state: 'waiting', why: 'no agents' }],
    } as unknown as StatusReport;
    expect(judgeGateway(report).map(({ grade, text }) => [grade, text])).toEqual([
      ['bad', 'no room for plans'],
      ['bad', 'net is waiting: no agents'],
      ['note', 'there is no agent'],
    ]);
  });

  it('has a line for the lane between each pair: direct, relayed with the reason, none, or not measured', () => {
    const agents = [
      agent('a', {}, { lanes: [lane('b', 'relay', 'connect ETIMEDOUT'), lane('c', 'down', 'gone')] }),
      agent('b'),
      agent('c'),
    ];
    const links = [
      link('dispatcher', 'a'),
      link('a', 'dispatcher'),
      link('dispatcher', 'b', { lane: 'relay' }),
      link('b', 'c', { problem: 'too fast to be true' }),
    ];
    const found = judgeLanes({ agents, links }, ['a', 'b', 'c'], true);
    expect(found.map(({ check, grade }) => [check, grade])).toEqual([
      ['dispatcher and a', 'ok'],
      ['dispatcher and b', 'note'],
      ['dispatcher and c', 'note'],
      ['a and b', 'note'],
      ['a and c', 'bad'],
      ['b and c', 'note'],
    ]);
    expect(found[3]).toMatchObject({ text: expect.stringContaining('ETIMEDOUT'), todo: expect.stringContaining('agent.lanePort') });
    expect(found[2]?.text).toBe('not measured');
    // Nothing was asked for: what is not known is no finding.
    expect(judgeLanes({ agents, links }, ['a', 'b', 'c'], false)).toHaveLength(5);
  });
});

describe('the report', () => {
  it('stands by area, says what to do below each finding, keeps to the width, and counts', () => {
    const text = findingsText(
      [
        ok('this machine', 'node', 'v20'),
        bad('gateway', 'port', `taken by ${'somebody '.repeat(12)}`, `Do ${'this and '.repeat(12)}that.`),
        note('this machine', 'clock', 'late', 'Set it.'),
      ],
      80,
    );
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(text).toMatch(/^this machine\n {2}ok {4}node {3}v20\n {2}note {2}clock {2}late\n {8}-> Set it\.\n\ngateway\n {2}BAD {3}port/);
    expect(text).toMatch(/1 bad, 1 to note, 1 ok\.$/);
    expect(findingsText([ok('x', 'y', 'z')])).toMatch(/All is well\.$/);
  });
});
