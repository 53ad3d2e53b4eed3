/** For tests: statuses of clusters that never were. */
import type {
  AgentStatus,
  DeploymentStatus,
  Health,
  LaneHealth,
  PlanReport,
  PlanRow,
  SeatHealth,
  StatusReport,
} from '../../broker/messages.js';

export function laneOf(peer: string, more: Partial<LaneHealth> = {}): LaneHealth {
  const none = { why: '', bytesSent: 0, messagesSent: 0, sendMs: 0, receivedBytesPerSecond: 0, receivedSamples: 0, roundTripMs: 0.6 };
  const idle = { waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 };
  return { peer, lane: 'direct', ...none, ...idle, ...more };
}

export function healthOf(agent: string, more: Partial<Health> = {}): Health {
  return {
    ...{ agent, nonce: `n-${agent}`, uptimeMs: 60_000, cpu: 0.8, rssBytes: 3e8, anonymousBytes: 2e8, memoryFreeBytes: 5e8 },
    ...{ temperature: 61, throttled: 0, queue: 1, framesPerSecond: 24, p50Ms: 12.3, p95Ms: 18.9, reconnects: 0 },
    ...{ refused: 0, damaged: 0, encodedMessages: 0, rawFallbacks: 0, recovered: 0, peersTerm: 1, peersVersion: 1 },
    ...{ seats: [], lanes: [], refusals: [] },
    ...more,
  };
}

export function agentOf(agent: string, more: Partial<AgentStatus> = {}, health: Partial<Health> = {}): AgentStatus {
  return {
    ...{
      agent,
      state: 'ready',
      why: '',
      losses: 0,
      heldMs: 0,
      addresses: ['192.168.1.31'],
      lanePort: 41_233,
      cores: 4,
      host: agent,
      hostCores: 4,
    },
    ...{
      cpuLimit: 0,
      cpuPeriodMs: 0,
      engineThreads: 4,
      correction: 1,
      memoryBytes: 1e9,
      probeMacsPerSecond: 5e9,
      probeBytesPerSecond: 4e9,
      probeSmallRunMs: 0.1,
      encrypted: true,
      softwareVersion: '0.1.0',
    },
    health: healthOf(agent, health),
    ...more,
  };
}

export function seatOf(stage: number, part: number, agent: string, more: Partial<PlanRow> = {}): PlanRow {
  return {
    ...{ stage, cut: 'rows', replica: 0, part, agent, slice: `${stage}${part}`.padEnd(64, 'ab'), macs: 30_000_000, weightBytes: 620_000 },
    ...{ predictedMs: 11.8, bytesIn: 1_200_000, bytesOut: 860_000 },
    ...more,
  };
}

export function runOf(deployment: string, stage: number, part: number, framesRun: number, more: Partial<SeatHealth> = {}): SeatHealth {
  return { deployment, epoch: 7, stage, replica: 0, part, framesRun, queue: 0, runMs: 12, ...more };
}

export function planOf(deployment: string, seats: readonly PlanRow[], links: readonly (readonly [from: string, to: string])[]): PlanReport {
  return {
    ...{ deployment, epoch: 7, planner: 'auto', why: 'the slowest stage is stage 1\nsecond: pipeline', basis: 'measured profiles' },
    ...{ predictedLatencyMs: 71, predictedFps: 14, seats, memory: [], precision: null, redundancy: null, details: null },
    links: links.map(([from, to]) => ({ from, to, bytesPerFrame: 300_000, rawBytesPerFrame: 300_000 })),
  };
}

export function deploymentOf(name: string, plan: PlanReport | null, more: Partial<DeploymentStatus> = {}): DeploymentStatus {
  return {
    ...{ name, model: 'f'.repeat(64), state: 'serving', why: '', epoch: 7, inputs: [], outputs: [], images: [], inFlight: 3, queued: 0 },
    ...{ completed: 1234, failed: 0, reissued: 0, rawFallbacks: 0, recovered: 0, p50Ms: 82, p95Ms: 97, framesPerSecond: 12.1, plan },
    ...{
      expectedLatencyMs: 70,
      expectedFps: 13.9,
      objective: 'latency',
      weight: 1,
      demandFps: 12,
      outlook: '',
      live: [],
      progress: [],
      losses: [],
    },
    ...more,
  };
}

export function reportOf(more: Partial<StatusReport> = {}): StatusReport {
  return {
    ...{
      cluster: 'home',
      term: 4,
      encrypted: true,
      uptimeMs: 11_520_000,
      dispatcherAddresses: ['192.168.1.30'],
      dispatcherPort: 41_000,
      problems: [],
    },
    ...{ agents: [], deployments: [], lanes: [], host: 'gateway-host', links: [], refusals: [], events: [] },
    ...more,
  };
}

/** Four boards with bands of an image, the last stages on one of them; an agent more, one relay lane. `second`: samples later. */
export function homeReport(second = 0): StatusReport {
  const bands = ['pi-1', 'pi-2', 'pi-3', 'pi-4'];
  const seats = [
    ...[0, 1, 2].flatMap((stage) => bands.map((agent, part) => seatOf(stage, part, agent))),
    seatOf(3, 0, 'pi-5', { cut: 'whole', macs: 90_000_000, predictedMs: 30 }),
  ];
  const neighbours = [
    ['pi-1', 'pi-2'],
    ['pi-2', 'pi-1'],
    ['pi-2', 'pi-3'],
    ['pi-3', 'pi-2'],
    ['pi-3', 'pi-4'],
    ['pi-4', 'pi-3'],
  ] as const;
  const links = [
    ...bands.map((agent) => ['dispatcher', agent] as const),
    ...neighbours,
    ...bands.map((agent) => [agent, 'pi-5'] as const),
    ['pi-5', 'dispatcher'] as const,
  ];
  const lanesOf = (agent: string): LaneHealth[] =>
    links.flatMap(([from, to]) => {
      if (from !== agent) return [];
      const relayed = from === 'pi-4' && to === 'pi-5' ? { lane: 'relay' as const, why: 'connection refused', roundTripMs: 0 } : {};
      return [laneOf(to, { bytesSent: 1e6 + second * 3_600_000, ...relayed })];
    });
  const at = { uptimeMs: 60_000 + 1000 * second };
  const agents = [
    ...bands.map((agent, part) =>
      agentOf(agent, {}, { ...at, lanes: lanesOf(agent), seats: [0, 1, 2].map((stage) => runOf('det', stage, part, 100 + 12 * second)) }),
    ),
    agentOf('pi-5', {}, { ...at, lanes: lanesOf('pi-5'), cpu: 3.2, temperature: 74, seats: [runOf('det', 3, 0, 100 + 12 * second)] }),
    agentOf('pi-6', {}, { ...at, cpu: 0.02, framesPerSecond: 0, p50Ms: 0, p95Ms: 0, queue: 0 }),
  ];
  const live = seats.map(({ stage, replica, part, agent, predictedMs }) => ({
    ...{ stage, replica, part, agent, predictedMs, measuredMs: predictedMs + 0.4, frames: 100, factor: 1 },
  }));
  return reportOf({
    uptimeMs: 11_520_000 + 1000 * second,
    agents,
    deployments: [
      deploymentOf('det', planOf('det', seats, links), {
        losses: [{ agent: 'pi-4', outcome: 'repair', takers: ['pi-6'], missingBytes: 0, pauseMs: 40, why: '' }],
        live,
        completed: 1234 + 12 * second,
      }),
    ],
    lanes: lanesOf('dispatcher'),
    links: [
      {
        from: 'pi-4',
        to: 'pi-5',
        lane: 'relay',
        bytesPerSecond: 5e6,
        latencyMs: 3.2,
        spread: 0.1,
        source: 'measured',
        ageMs: 1,
        problem: '',
      },
      {
        from: 'pi-1',
        to: 'pi-2',
        lane: 'direct',
        bytesPerSecond: 110e6,
        latencyMs: 0.3,
        spread: 0.1,
        source: 'measured',
        ageMs: 1,
        problem: '',
      },
    ],
    events: [
      { atMs: 11_000_000, kind: 'joined', text: 'agent pi-6' },
      { atMs: 11_500_000, kind: 'suspect', text: 'agent pi-4: the direct lane of pi-5 to it broke (connection refused)' },
      { atMs: 11_510_000, kind: 'recovered', text: 'agent pi-4' },
    ],
  });
}

/** So many agents, each a neighbour of all others, as a wide cut makes them. */
export function crowdReport(count: number, second = 0, name = (i: number): string => `board-${i + 1}`): StatusReport {
  const names = Array.from({ length: count }, (_, i) => name(i));
  const links = [
    ...names.map((agent) => ['dispatcher', agent] as const),
    ...names.flatMap((from) => names.flatMap((to) => (from === to ? [] : [[from, to] as const]))),
    ...names.map((agent) => [agent, 'dispatcher'] as const),
  ];
  const seats = [0, 1].flatMap((stage) =>
    names.map((agent, part) => seatOf(stage, part, agent, { cut: stage === 0 ? 'rows' : 'channels' })),
  );
  const agents = names.map((agent, part) =>
    agentOf(
      agent,
      {},
      {
        uptimeMs: 60_000 + 1000 * second,
        cpu: part / count,
        lanes: ['dispatcher', ...names].flatMap((peer) => (peer === agent ? [] : [laneOf(peer, { bytesSent: second * 10_000 })])),
        seats: [0, 1].map((stage) => runOf('det', stage, part, second)),
      },
    ),
  );
  return reportOf({ agents, deployments: [deploymentOf('det', planOf('det', seats, links))], lanes: names.map((agent) => laneOf(agent)) });
}
