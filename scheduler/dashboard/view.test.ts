import { describe, expect, it } from 'vitest';
import type { StatusReport } from '../../broker/messages.js';
import { agentOf, crowdReport, deploymentOf, healthOf, homeReport, laneOf, planOf, reportOf, runOf, seatOf } from './fixture.js';
import { type History, NO_HISTORY, observe, SERIES_LENGTH } from './history.js';
import { throttledBefore, throttledNow } from './throttling.js';
import { type DashboardView, viewOf } from './view.js';

/** The view after these reports, a second apart. */
function seen(...reports: readonly StatusReport[]): { view: DashboardView; history: History } {
  let history = NO_HISTORY;
  for (const [i, report] of reports.entries()) history = observe(history, report, 1000 * i);
  return { history, view: viewOf(reports.at(-1) ?? reportOf(), history) };
}

const agentIn = (view: DashboardView, name: string) => view.agents.find(({ agent }) => agent === name);
const laneIn = (view: DashboardView, from: string, to: string) => view.lanes.find((lane) => lane.from === from && lane.to === to);

describe('rates', () => {
  it('are what happened between two health messages, by their own time', () => {
    const { view } = seen(homeReport(0), homeReport(1));
    expect(agentIn(view, 'pi-1')?.framesPerSecond).toBe(12);
    expect(laneIn(view, 'pi-1', 'pi-2')?.bytesPerSecond).toBe(3_600_000);
    expect(laneIn(view, 'dispatcher', 'pi-3')?.bytesPerSecond).toBe(3_600_000);
  });

  it('stay when a status shows the same health again', () => {
    const { view } = seen(homeReport(0), homeReport(1), homeReport(1));
    expect(agentIn(view, 'pi-1')?.framesPerSecond).toBe(12);
    expect(laneIn(view, 'pi-1', 'pi-2')?.bytesPerSecond).toBe(3_600_000);
  });

  it('are nothing after one look, and after an agent was started anew', () => {
    const fresh = homeReport(1);
    const restarted = {
      ...fresh,
      agents: [
        agentOf('pi-1', {}, { nonce: 'another', uptimeMs: 100, seats: [runOf('det', 0, 0, 3)], lanes: [laneOf('pi-2', { bytesSent: 5 })] }),
      ],
    };
    expect(agentIn(seen(homeReport(0)).view, 'pi-1')?.framesPerSecond).toBe(0);
    const { view } = seen(homeReport(0), restarted);
    expect(agentIn(view, 'pi-1')?.framesPerSecond).toBe(0);
    expect(laneIn(view, 'pi-1', 'pi-2')?.bytesPerSecond).toBe(0);
  });

  it('count a frame once on an agent with several seats, and the frames of its replicas together', () => {
    const seats = (n: number) => [
      ...[0, 1, 2].map((stage) => runOf('a', stage, 0, 10 * n)),
      runOf('a', 3, 0, 5 * n, { replica: 0 }),
      runOf('a', 3, 0, 6 * n, { replica: 1 }),
      runOf('b', 0, 0, 2 * n),
    ];
    const at = (n: number) => reportOf({ agents: [agentOf('x', {}, { uptimeMs: 1000 * (n + 1), seats: seats(n) })] });
    expect(agentIn(seen(at(1), at(2)).view, 'x')?.framesPerSecond).toBe(13);
  });

  it('of an agent that is gone are nothing, whatever it said last', () => {
    const gone = { ...homeReport(1), agents: [agentOf('pi-1', { state: 'lost', why: 'silent for 3.6 s' }, { cpu: 4 })] };
    const { view } = seen(homeReport(0), gone);
    expect(agentIn(view, 'pi-1')).toMatchObject({ live: false, cpu: 0, framesPerSecond: 0, p95Ms: 0 });
    expect(laneIn(view, 'pi-1', 'pi-2')).toBeUndefined();
  });

  it('are kept as series of bounded length, and forgotten with who they were of', () => {
    const reports = Array.from({ length: SERIES_LENGTH + 30 }, (_, i) => homeReport(i));
    const { history, view } = seen(...reports);
    expect(agentIn(view, 'pi-1')?.framesSeries).toHaveLength(SERIES_LENGTH);
    expect(view.deployments[0]?.framesSeries).toHaveLength(SERIES_LENGTH);
    expect(observe(history, reportOf(), 1e6).agents.size).toBe(0);
  });
});

describe('the topology', () => {
  it('is a column from the gateway and back, with neighbouring stages on the same seats as one', () => {
    const [topology] = seen(homeReport(0), homeReport(1)).view.topologies;
    const shape = topology?.flow.map((one) =>
      one.kind === 'hop' ? `hop of ${one.lanes.length}` : `${one.first}-${one.last} ${one.cut} at ${one.seats.flat().length}`,
    );
    expect(shape).toEqual(['hop of 4', '1-3 rows at 4', 'hop of 4', '4-4 whole at 1', 'hop of 1']);
    const [, bands, down] = topology?.flow ?? [];
    expect(bands?.kind === 'stages' && bands.within.length).toBe(6);
    expect(bands?.kind === 'stages' && bands.seats[0]?.[0]).toMatchObject({
      agent: 'pi-1',
      part: 1,
      parts: 4,
      share: 0.25,
      predictedMs: expect.closeTo(35.4, 6),
    });
    expect(bands?.kind === 'stages' && bands.seats[0]?.[0]?.slices).toHaveLength(3);
    expect(down?.kind === 'hop' && down.lanes.find(({ from }) => from === 'pi-4')).toMatchObject({
      lane: 'relay',
      ms: 3.2,
      capacity: 5e6,
      why: 'connection refused',
    });
    expect(down?.kind === 'hop' && down.lanes.find(({ from }) => from === 'pi-1')).toMatchObject({
      lane: 'direct',
      ms: 0.3,
      bytesPerSecond: 3_600_000,
    });
  });

  it('names lanes that jump over stages, and agents that pass on to themselves', () => {
    const seats = ['a', 'b', 'c', 'c'].map((agent, stage) => seatOf(stage, 0, agent, { cut: stage === 3 ? 'tail' : 'whole' }));
    const plan = planOf('m', seats, [
      ['dispatcher', 'a'],
      ['a', 'b'],
      ['b', 'c'],
      ['a', 'c'],
      ['c', 'dispatcher'],
    ]);
    const [topology] = seen(reportOf({ deployments: [deploymentOf('m', plan)] })).view.topologies;
    expect(topology?.across.map(({ from, to }) => `${from} ${to}`)).toEqual(['a c']);
    const hops = topology?.flow.flatMap((one) => (one.kind === 'hop' ? [one.stays] : []));
    expect(hops).toEqual([[], [], [], ['c'], []]);
  });

  it('tells uneven shares, replicas and a parity apart', () => {
    const seats = [0, 1].flatMap((replica) => [
      seatOf(0, 0, `r${replica}a`, { replica, macs: 30 }),
      seatOf(0, 1, `r${replica}b`, { replica, macs: 10 }),
    ]);
    const coded = { stage: 1, parts: 2, agents: ['z'], macs: 1, parityMacs: 1, parityBytes: 1 };
    const parts = ['x', 'y', 'z'].map((agent, part) => seatOf(1, part, agent, { cut: 'channels' }));
    const redundancy = { addedMacs: 0, addedBytes: 0, covered: [], exposed: [], why: '', rows: [coded] };
    const plan = { ...planOf('m', [...seats, ...parts], []), redundancy };
    const [topology] = seen(reportOf({ deployments: [deploymentOf('m', plan)] })).view.topologies;
    const groups = topology?.flow.flatMap((one) => (one.kind === 'stages' ? [one.seats] : [])) ?? [];
    expect(groups[0]?.map((parts) => parts.map(({ share }) => share))).toEqual([
      [0.75, 0.25],
      [0.75, 0.25],
    ]);
    expect(groups[1]?.flat().map(({ parity }) => parity)).toEqual([false, false, true]);
  });
});

describe('the verdict', () => {
  const verdict = (more: Partial<StatusReport>) => seen({ ...homeReport(0), ...more }).view.verdict;

  it('is well when everybody is at work', () => {
    expect(verdict({})).toEqual({ state: 'well', reasons: [] });
  });

  it('names what is not: agents, deployments, heat and power, and what the gateway itself says', () => {
    const lost = agentOf('pi-2', { state: 'lost', why: 'silent for 3.6 s' });
    const weak = agentOf('pi-3', {}, { throttled: 0x50005 });
    const hot = agentOf('pi-4', {}, { temperature: 83.4 });
    const held = agentOf('pi-9', { state: 'joining', why: 'held back: it was lost 3 times', heldMs: 7100 });
    const { state, reasons } = verdict({ agents: [lost, weak, hot, held], problems: ['deployment x is not saved'] });
    expect(state).toBe('degraded');
    expect(reasons).toEqual([
      'det has seats at pi-1, pi-2, pi-5, which is not there',
      'pi-2 is lost: silent for 3.6 s',
      'pi-3: under-voltage: its power supply or cable is too weak; throttled',
      'pi-4 is at 83 degrees: it will slow down',
      'pi-9 gets no seats for 8 s: held back: it was lost 3 times',
      'deployment x is not saved',
    ]);
  });

  it('is degraded without agents, and while something is not served', () => {
    expect(seen(reportOf()).view.verdict.reasons).toEqual(['no agent has joined yet']);
    expect(verdict({ agents: [agentOf('pi-1', { state: 'stopped' })], deployments: [] }).reasons).toEqual(['no agent is ready']);
    expect(verdict({ deployments: [deploymentOf('det', null, { state: 'waiting', why: 'no agents' })] }).reasons).toEqual([
      'det is not served: waiting, no agents',
    ]);
  });

  it('tells of frames that failed for a minute, not for ever', () => {
    const failed = (count: number) => reportOf({ agents: [agentOf('a')], deployments: [deploymentOf('det', null, { failed: count })] });
    let history = observe(NO_HISTORY, failed(5), 0);
    expect(viewOf(failed(5), history).verdict.state).toBe('well');
    history = observe(history, failed(7), 1000);
    expect(viewOf(failed(7), history).verdict.reasons).toEqual(['det: 2 frames failed within the last minute']);
    history = observe(history, failed(7), 70_000);
    expect(viewOf(failed(7), history).verdict.state).toBe('well');
    // A gateway that was started anew counts from 0.
    expect(viewOf(failed(0), observe(history, failed(0), 71_000)).verdict.state).toBe('well');
  });
});

describe('the view', () => {
  it('of nothing is empty, not an error', () => {
    const { view } = seen(reportOf());
    expect(view).toMatchObject({ agents: [], deployments: [], topologies: [], lanes: [], events: [] });
  });

  it('sorts as people count, newest events first', () => {
    const agents = ['pi-10', 'pi-9', 'pi-1'].map((name) => agentOf(name));
    const { view } = seen(
      reportOf({
        agents,
        uptimeMs: 5000,
        events: [
          { atMs: 1000, kind: 'a', text: '' },
          { atMs: 4000, kind: 'b', text: '' },
        ],
      }),
    );
    expect(view.agents.map(({ agent }) => agent)).toEqual(['pi-1', 'pi-9', 'pi-10']);
    expect(view.events.map(({ kind, agoMs }) => [kind, agoMs])).toEqual([
      ['b', 1000],
      ['a', 4000],
    ]);
  });

  it('takes the share of CPU of what the agent may use', () => {
    const { view } = seen(
      reportOf({
        agents: [agentOf('a', { cpuLimit: 0.5 }, { cpu: 0.4 }), agentOf('b', { cores: 4 }, { cpu: 3 }), agentOf('c', { health: null })],
      }),
    );
    expect(view.agents.map(({ cpu, live }) => [cpu, live])).toEqual([
      [0.8, true],
      [0.75, true],
      [0, false],
    ]);
  });

  it('of fifty agents that all exchange with all is made in time', () => {
    const reports = Array.from({ length: 5 }, (_, i) => crowdReport(50, i));
    const from = performance.now();
    const { view } = seen(...reports);
    expect(view.lanes).toHaveLength(50 * 49 + 50 + 50);
    // A hundred times what it takes.
    expect(performance.now() - from).toBeLessThan(5000);
  });

  it("reads the firmware's flags: what is now, and what was", () => {
    expect(throttledNow(-1)).toEqual([]);
    expect(throttledBefore(-1)).toEqual([]);
    expect(throttledNow(0x50004)).toEqual(['throttled']);
    expect(throttledBefore(0x50004)).toEqual(['under-voltage: its power supply or cable is too weak']);
    expect(healthOf('a').throttled).toBe(0);
  });
});
