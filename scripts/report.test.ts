import { describe, expect, it } from 'vitest';
import type { AgentStatus, DeploymentStatus, PlanReport, PlanRow, StatusReport } from '../broker/messages.js';
import { framesText } from './commands/infer.js';
import { laneRows, lanesMatrix, stageRows, stagesText } from './demo/account.js';
import { planText, progressLine } from './report.js';
import { lossesText, planSummary, statusText } from './status-text.js';
import { bytesText, countText, formatTable, msText } from './table.js';

const seat = (stage: number, part: number, agent: string, more: Partial<PlanRow> = {}): PlanRow => ({
  stage,
  cut: 'rows',
  replica: 0,
  part,
  agent,
  slice: `s${stage}${part}`,
  macs: 30_000_000,
  weightBytes: 6_200,
  predictedMs: 0.84,
  bytesIn: 1_200_000,
  bytesOut: 860_000,
  ...more,
});

const planOf = (seats: readonly PlanRow[]): PlanReport => ({
  deployment: 'det',
  epoch: 2,
  planner: 'auto',
  why: 'because',
  basis: '',
  predictedLatencyMs: 12.3,
  predictedFps: 81,
  seats,
  links: [{ from: 'dispatcher', to: 'pi-1', bytesPerFrame: 922_000, rawBytesPerFrame: 922_000 }],
  memory: [{ agent: 'pi-1', needBytes: 217e6, haveBytes: 8e9 }],
  precision: null,
  redundancy: null,
  details: null,
});

const agentOf = (agent: string, lanes: readonly [string, string, number, number][], runMs = 3): AgentStatus => ({
  agent,
  state: 'ready',
  why: '',
  losses: 0,
  heldMs: 0,
  addresses: ['10.0.0.7'],
  lanePort: 4_000,
  cores: 4,
  host: `host of ${agent}`,
  hostCores: 4,
  cpuLimit: 0,
  cpuPeriodMs: 0,
  engineThreads: 4,
  correction: 1,
  memoryBytes: 8e9,
  probeMacsPerSecond: 5e9,
  probeBytesPerSecond: 4e9,
  probeSmallRunMs: 0.1,
  softwareVersion: '0.1.0',
  encrypted: true,
  health: {
    agent,
    nonce: 'n',
    uptimeMs: 1,
    cpu: 0.5,
    rssBytes: 2e8,
    anonymousBytes: 1e8,
    memoryFreeBytes: 4e9,
    temperature: 61,
    throttled: -1,
    p50Ms: 3,
    p95Ms: 4,
    reconnects: 0,
    queue: 0,
    framesPerSecond: 12,
    refused: 0,
    damaged: 2,
    encodedMessages: 0,
    rawFallbacks: 0,
    recovered: 0,
    seats: [{ deployment: 'det', epoch: 2, stage: 0, replica: 0, part: agent === 'pi-1' ? 0 : 1, framesRun: 4, queue: 0, runMs }],
    peersTerm: 0,
    peersVersion: 0,
    refusals: [],
    lanes: lanes.map(([peer, lane, bytesSent, messagesSent]) => ({
      peer,
      lane: lane as 'direct',
      why: '',
      bytesSent,
      messagesSent,
      sendMs: 1,
      receivedBytesPerSecond: 0,
      receivedSamples: 0,
      roundTripMs: 0,
      ...{ waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 },
    })),
  },
});

describe('plans for people', () => {
  it('have a row per seat, links and memory, within the width', () => {
    const text = planText(planOf([seat(0, 0, 'pi-1'), seat(0, 1, 'pi-2')]), 80);
    expect(text).toContain('1 stage, 2 seats, 2 different slices');
    expect(text).toMatch(/1 +rows +2 +pi-2 +30\.0 M/);
    expect(text).toMatch(/dispatcher +pi-1 +922 kB/);
    expect(text).toMatch(/pi-1 +217 MB +8\.0 GB/);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('never say that nothing travels where there are too many pairs to list', () => {
    const replicas = Array.from({ length: 500 }, (_, replica) => seat(0, 0, `n${replica}`, { replica, bytesIn: 600_000, bytesOut: 4_000 }));
    const text = planText({ ...planOf(replicas), links: [] }, 120);
    expect(text).toContain('about 604 kB between seats per frame (too many links to list)');
    expect(planText(planOf(replicas.slice(0, 2)), 120)).toContain('922 kB over links per frame');
  });

  it('have a row per stage when there are many seats', () => {
    const seats = Array.from({ length: 80 }, (_, i) =>
      seat(Math.floor(i / 4), i % 4, `pi-${i % 4}`, i % 4 === 0 ? { macs: 60_000_000 } : {}),
    );
    const text = planText(planOf(seats), 100);
    expect(text.split('\n').length).toBeLessThan(40);
    expect(text).toMatch(/20 +rows +4 +150 M +40 % .* pi-0 \+3/);
  });
});

describe('the summary of a plan', () => {
  it('has at most twelve lines, however many stages there are, and no sentence that breaks off unsaid', () => {
    const many = Array.from({ length: 40 }, (_, i) => seat(i, 0, `pi-${i % 7}`));
    for (const seats of [[seat(0, 0, 'pi-1')], many]) {
      const lines = planSummary({ ...planOf(seats), why: 'because of this '.repeat(30) }).split('\n');
      expect(lines.length).toBeLessThanOrEqual(12);
      expect(lines.filter((line) => line.endsWith(' ...'))).toHaveLength(1);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    }
    expect(planSummary(planOf(many))).toContain('32 more rows (--verbose)');
    expect(planSummary(planOf([seat(0, 0, 'pi-1'), seat(0, 1, 'pi-2')]))).toMatch(/stage 1 +rows:2 +pi-1, pi-2/);
  });
});

describe('frames for people', () => {
  it('keep those that worked when one fails, and count', () => {
    const row = (file: string, latencyMs: number) => ({ file, latencyMs, attempts: 1, outputs: {} });
    const text = framesText([row('a.npy', 10), { file: 'b.npy', code: 'FRAME_DEADLINE', message: 'too late' }, row('c.npy', 20)], 100);
    expect(text.split('\n')).toEqual([
      'a.npy: 10.0 ms',
      'b.npy: FRAME_DEADLINE: too late',
      'c.npy: 20.0 ms',
      '3 frames: 20.0 frames/s; latency p50 20.0 ms, p95 20.0 ms; 1 failed',
    ]);
  });
});

describe('the status for people', () => {
  const deployment: DeploymentStatus = {
    name: 'det',
    model: 'abc',
    state: 'preparing',
    why: '',
    epoch: 2,
    inputs: [{ name: 'x', dtype: 'uint8', dims: [960, 1280, 3] }],
    outputs: [],
    images: [],
    inFlight: 1,
    queued: 0,
    completed: 9,
    failed: 0,
    rawFallbacks: 0,
    recovered: 0,
    reissued: 0,
    p50Ms: 10,
    p95Ms: 20,
    framesPerSecond: 5,
    plan: planOf([seat(0, 0, 'pi-1')]),
    expectedLatencyMs: 0,
    expectedFps: 0,
    objective: 'latency',
    weight: 1,
    demandFps: 0,
    outlook: '',
    losses: [],
    live: [],
    progress: [
      { agent: 'pi-1', deployment: 'det', epoch: 2, step: 'fetch', doneBytes: 1e6, totalBytes: 4e6 },
      { agent: 'pi-2', deployment: 'det', epoch: 2, step: 'ready', doneBytes: 4e6, totalBytes: 4e6 },
    ],
  };

  it('shows agents, deployments with their seats, lanes and events', () => {
    const report: StatusReport = {
      cluster: 'home',
      term: 3,
      encrypted: true,
      problems: ["deployment 'det' is not saved: the disk is full"],
      uptimeMs: 61_000,
      dispatcherAddresses: ['10.0.0.1'],
      dispatcherPort: 9,
      lanes: [],
      host: '',
      links: [],
      agents: [agentOf('pi-1', [['pi-2', 'direct', 5_000, 3]])],
      deployments: [deployment],
      refusals: [],
      events: [{ atMs: 1_000, kind: 'joined', text: 'agent pi-1' }],
    };
    const text = statusText(report);
    for (const part of [
      'pi-1   ready',
      '61 C',
      'det: preparing',
      'stage 1  rows:1  pi-1',
      'pi-1 fetch 1.0 MB of 4.0 MB',
      'direct',
      'joined: agent pi-1',
      "  deployment 'det' is not saved: the disk is full",
      'pi-1 found 2 damaged files on its disk',
    ])
      expect(text).toContain(part);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
    // Of its four cores an agent may use what its control group permits.
    const limited = (cpuLimit: number): string => statusText({ ...report, agents: [{ ...agentOf('pi-1', []), cpuLimit }] });
    expect(limited(0.18)).toMatch(/pi-1 +ready .* 0\.18 /);
    expect(limited(8)).toMatch(/pi-1 +ready .* 4 /);
  });

  it('says who is lost and why, and why a lane is not direct', () => {
    const pi1 = agentOf('pi-1', [
      ['pi-3', 'relay', 5_000, 3],
      ['pi-2', 'direct', 888, 3],
      ['dispatcher', 'direct', 0, 0],
    ]);
    const lanes = pi1.health?.lanes.map((lane) =>
      lane.lane === 'relay' ? { ...lane, why: `no answer from ${'10.0.0.8:4000 '.repeat(8)}` } : lane,
    );
    const refusals = [
      { code: 'EPOCH_STALE', count: 7, latest: '' },
      { code: 'CODEC_INVALID', count: 1, latest: '' },
    ];
    const report: StatusReport = {
      cluster: 'home',
      term: 3,
      encrypted: true,
      problems: [],
      uptimeMs: 200_000,
      dispatcherAddresses: ['10.0.0.1'],
      dispatcherPort: 9,
      lanes: [],
      host: '',
      links: [],
      agents: [
        { ...agentOf('pi-2', [['pi-1', 'direct', 777, 3]]), state: 'lost', why: 'silent for 3.5 s' },
        { ...agentOf('pi-4', []), state: 'joining', why: 'held back: it was lost 3 times', losses: 3, heldMs: 4_000 },
        { ...pi1, health: pi1.health === null || lanes === undefined ? null : { ...pi1.health, lanes, refusals } },
      ],
      deployments: [
        { ...deployment, state: 'serving', plan: planOf([0, 1, 2].flatMap((stage) => [seat(stage, 0, 'pi-1'), seat(stage, 1, 'pi-2')])) },
      ],
      refusals: [{ code: 'SENDER_WRONG', count: 2, latest: 'farewell of another process' }],
      events: [{ atMs: 20_000, kind: 'lost', text: 'agent pi-2: silent for 3.5 s' }],
    };
    const text = statusText(report);
    expect(text).toContain('pi-2 is lost: silent for 3.5 s');
    expect(text).toContain('pi-4 gets seats in 4 s; held back: it was lost 3 times');
    expect(text).toMatch(/Refused messages.*\n {2}gateway: 2 SENDER_WRONG\n {2}pi-1: 7 EPOCH_STALE, 1 CODEC_INVALID/);
    expect(text).toContain('stages 1-3  rows:2  pi-1, pi-2 (lost)');
    expect(text).toMatch(/pi-1 +pi-3 +relay +5\.0 kB +3/);
    expect(text).toContain('pi-1 to pi-3 through the broker: no answer from 10.0.0.8:4000');
    expect(text).toContain('1 more direct lane, with nothing sent yet.');
    expect(text).toMatch(/^Cluster home \(encrypted\), up/);
    expect(statusText({ ...report, encrypted: false })).toMatch(/^Cluster home, up.*\n {2}INSECURE: nothing is encrypted/);
    expect(text).toMatch(/3 min ago +lost: agent pi-2/);
    // What a lost agent sent once says nothing about now.
    expect(text).not.toContain('777 B');
    expect(text).not.toContain('888 B');
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('says how far models have travelled in one line', () => {
    expect(progressLine(deployment)).toBe('det: preparing 5.0 MB of 8.0 MB [pi-1 25 %, pi-2 ready]');
    const planning = { ...deployment, state: 'planning', why: 'pi-3 is waited for', progress: [] };
    expect(progressLine(planning)).toBe('det: planning (pi-3 is waited for)');
  });
});

describe("the demo's account", () => {
  it('takes the slowest part of each stage, as its agent measured it', () => {
    const rows = stageRows(planOf([seat(0, 0, 'pi-1'), seat(0, 1, 'pi-2', { macs: 10_000_000 })]), [
      agentOf('pi-1', [], 3),
      agentOf('pi-2', [], 7),
    ]);
    expect(rows).toEqual([expect.objectContaining({ stage: 0, parts: 2, macs: 40_000_000, largestShare: 0.75, measuredMs: 7 })]);
    expect(stagesText(rows)).toContain('75 %');
  });

  it('counts only what was sent since, and tells hand-overs and relays apart', () => {
    const before = [agentOf('pi-1', [['pi-2', 'direct', 1_000, 1]])];
    const after = [
      agentOf('pi-1', [
        ['pi-2', 'direct', 6_000, 3],
        ['pi-1', 'local', 2_000, 1],
        ['pi-3', 'relay', 500, 1],
      ]),
    ];
    const rows = laneRows(before, after);
    expect(rows[0]).toMatchObject({ bytes: 5_000, messages: 2 });
    const text = lanesMatrix(rows);
    expect(text).toContain('(2.0 kB)');
    expect(text).toContain('500 B relayed');
  });
});

describe('tables and units', () => {
  it('cut the widest text, never a number', () => {
    const text = formatTable([{ title: 'name' }, { title: 'n', align: 'right' }], [['a'.repeat(40), '123456']], 20);
    expect(text).toContain('…');
    expect(text).toContain('123456');
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(20);
  });

  it.each([
    [bytesText(0), '0 B'],
    [bytesText(999), '999 B'],
    [bytesText(999_600), '1.0 MB'],
    [bytesText(28_249_000), '28.2 MB'],
    [countText(153), '153'],
    [countText(15_470_000_000), '15.5 G'],
    [msText(4.25), '4.3 ms'],
    [msText(430.4), '430 ms'],
    [msText(12_345), '12.3 s'],
  ])('read %s', (text, wanted) => {
    expect(text).toBe(wanted);
  });
});

describe('what the loss of one agent would mean', () => {
  const row = (agent: string, outcome: string, more: object = {}) => ({
    ...{ agent, outcome, takers: [], missingBytes: 0, pauseMs: 0, why: '', ...more },
  });

  it('is one line for each outcome, with who takes over and how soon', () => {
    const rows = [
      row('pi-10', 'goes-on'),
      row('pi-2', 'goes-on'),
      row('pi-3', 'repair', { takers: ['pi-6'] }),
      row('pi-4', 'repair', { takers: ['pi-6', 'pi-2'], pauseMs: 430 }),
      row('pi-5', 'fetching', { takers: ['pi-6'], missingBytes: 12_300_000 }),
      row('pi-0', 'plan', { why: 'repair: no agent can take over the seats of pi-0' }),
    ];
    expect(lossesText(rows)).toEqual([
      '  when one agent is lost:',
      '    frames go on    pi-2, pi-10',
      '    repair at hand  pi-3 by pi-6 at once, pi-4 by pi-6+pi-2 in about 0.4 s',
      '    being fetched   pi-5 by pi-6, 12.3 MB to go',
      '    another plan    pi-0 (no agent can take over the seats of pi-0)',
    ]);
    expect(lossesText([])).toEqual([]);
  });

  it('stays short with many agents, and says a common reason once', () => {
    const many = Array.from({ length: 60 }, (_, i) => row(`pi-${i}`, 'unknown', { why: 'it is being worked out' }));
    const lines = lossesText(many);
    expect(lines.join(' ').replace(/ +/g, ' ')).toContain('pi-7, and 52 more (it is being worked out)');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
  });
});
