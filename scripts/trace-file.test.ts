import { describe, expect, it } from 'vitest';
import type { TraceReport, TraceSpan, TraceSpans } from '../broker/messages.js';
import { SINK } from '../broker/plan.js';
import { brokenRules } from './test-trace-rules.js';
import { type TraceFile, traceFile, wholeFrames } from './trace-file.js';

const spanOf = (kind: string, frame: number, startUs: number, durationUs: number, more: Partial<TraceSpan> = {}): TraceSpan => ({
  ...{ kind, frame, attempt: 1, stage: 0, replica: 0, part: 0, peer: '', toStage: -1, toPart: 0, startUs, durationUs, bytes: 0 },
  ...more,
});
const agentOf = (agent: string, offsetUs: number, spans: readonly TraceSpan[], more: Partial<TraceSpans> = {}): TraceSpans => ({
  ...{ agent, offsetUs, errorUs: 250, frames: 1, dropped: 0, why: '', spans },
  ...more,
});

/** Two agents whose clocks are far from the gateway's; frames 1 and 2 are whole, 3 is not. `b` has stage 1 and, over a skip connection from `a`, stage 2. */
const report: TraceReport = {
  deployment: 'det',
  epoch: 7,
  agents: [
    agentOf(
      'b',
      -5_000_000.25,
      [
        spanOf('receive', 1, 6_012_600, 300, { stage: 1 }),
        spanOf('compute', 1, 6_013_000, 5000, { stage: 1 }),
        spanOf('receive', 1, 6_012_500, 5600, { stage: 2 }),
        spanOf('compute', 1, 6_018_200, 700, { stage: 2 }),
        spanOf('send', 1, 6_019_000, 100, { stage: 2, peer: 'dispatcher', toStage: SINK }),
      ],
      { errorUs: 1200 },
    ),
    agentOf('c', 0, [], { why: 'no reply' }),
    agentOf('a', 900_000, [
      spanOf('receive', 1, 101_000, 0),
      spanOf('compute', 1, 102_000, 9000),
      spanOf('compute', 2, 112_000, 9000),
      spanOf('compute', 3, 122_000, 9000),
      spanOf('send', 1, 111_500, 500, { peer: 'b', toStage: 1 }),
      spanOf('send', 1, 111_600, 500, { peer: 'b', toStage: 2 }),
      spanOf('wait', 1, 101_000, 1000),
      spanOf('wait', 2, 101_500, 10_500),
    ]),
    agentOf('dispatcher', 0, [
      spanOf('frame', 1, 1_000_000, 30_000, { stage: -1 }),
      spanOf('frame', 2, 1_010_000, 30_000, { stage: -1 }),
      spanOf('send', 1, 1_000_500, 400, { stage: -1, peer: 'a', toStage: 0 }),
    ]),
  ],
};

const file = traceFile(report, wholeFrames(report, 100));
const complete = file.traceEvents.filter(({ ph }) => ph === 'X');
/** `from -> to` by the names of the events that an arrow joins. */
function arrowsOf({ traceEvents }: TraceFile): string[] {
  const at = ({ pid, tid, ts = 0 }: TraceFile['traceEvents'][number]) =>
    traceEvents.find(
      (one) => one.ph === 'X' && one.pid === pid && one.tid === tid && (one.ts ?? 0) <= ts && ts < (one.ts ?? 0) + (one.dur ?? 0),
    )?.name;
  return traceEvents
    .filter(({ ph }) => ph === 's')
    .map((from) => {
      const [to] = traceEvents.filter(({ ph, id }) => ph === 'f' && id === from.id);
      return `${at(from)} -> ${to === undefined ? 'nowhere' : at(to)}`;
    });
}

describe('a trace file', () => {
  it('has whole frames only, the earliest ones', () => {
    expect([...wholeFrames(report, 100)]).toEqual([1, 2]);
    expect([...wholeFrames(report, 1)]).toEqual([1]);
    expect(complete.some(({ args }) => args?.frame === 3)).toBe(false);
  });

  it("puts all times on the gateway's clock, from 0 on", () => {
    const starts = (kind: string, frame: number) =>
      complete.filter(({ cat, args }) => cat === kind && args?.frame === frame).map(({ ts }) => ts);
    expect(starts('frame', 1)).toEqual([0]);
    expect(starts('compute', 1)).toEqual([2000, 13_000, 18_200]);
  });

  it('names the gateway first, then agents by what they compute, with how far off their clocks may be, and why one has nothing', () => {
    const names = file.traceEvents.flatMap(({ name, args }) => (name === 'process_name' ? [args?.name] : []));
    expect(names).toEqual(['gateway', 'a, stage 1, clock ±0.25 ms', 'b, stages 2-3, clock ±1.20 ms', 'c, no trace: no reply']);
    expect(file.otherData['largest clock error, ms']).toBe(1.2);
  });

  it('keeps what the two viewers want', () => {
    expect(brokenRules(file)).toEqual([]);
    const waits = file.traceEvents.flatMap(({ name, pid, args }) => (name === 'thread_name' && pid === 2 ? [args?.name] : []));
    expect(waits).toEqual(['receive', 'wait', 'wait +1', 'compute', 'send', 'send +1']);
    const spoilt = (change: (one: TraceFile['traceEvents'][number]) => object) =>
      brokenRules({ ...file, traceEvents: file.traceEvents.map((one) => ({ ...one, ...change(one) })) });
    expect(spoilt(({ ph }) => (ph === 'X' ? { dur: -1 } : {}))).not.toEqual([]);
    expect(spoilt(({ ph }) => (ph === 'X' ? { tid: 1000 } : {})).join()).toContain('overlaps');
    expect(spoilt(({ ph }) => (ph === 'f' ? { bp: undefined } : {})).join()).toContain('does not bind');
    expect(spoilt(({ ph, ts }) => (ph === 'f' ? { ts: (ts ?? 0) + 1 } : {})).join()).toContain('not within');
    expect(spoilt(({ ph }) => (ph === 's' ? { id: 999 } : {})).join()).toContain('did not begin');
    expect(brokenRules({ ...file, traceEvents: file.traceEvents.filter(({ name }) => name !== 'thread_name') })).not.toEqual([]);
  });

  it('draws an arrow from a send to the seat that took it, over stages too, and from the last one to the frame', () => {
    expect(arrowsOf(file)).toEqual([
      '#1 send, to a -> #1 receive, stage 1 part 1',
      '#1 send, stage 1 part 1, to b -> #1 receive, stage 2 part 1',
      '#1 send, stage 1 part 1, to b -> #1 receive, stage 3 part 1',
      '#1 send, stage 3 part 1, to gateway -> frame 1',
    ]);
  });

  it('has no arrow back in time where a clock is off: it ends at the run, or is counted', () => {
    const early = (byUs: number) =>
      traceFile(
        { ...report, agents: report.agents.map((one) => (one.agent === 'b' ? { ...one, offsetUs: one.offsetUs - byUs } : one)) },
        new Set([1]),
      );
    for (const byUs of [0, 500, 1400, 5000, 7000, 20_000]) expect(brokenRules(early(byUs))).toEqual([]);
    expect(arrowsOf(early(1400))).toContain('#1 send, stage 1 part 1, to b -> #1 compute, stage 2 part 1');
    expect(Object.keys(early(1400).otherData).join()).not.toContain('left out');
    expect(Object.entries(early(20_000).otherData).join()).toMatch(/arrows left out .*,2$/);
  });

  it('says when a frame was issued again', () => {
    const again = traceFile(
      { ...report, agents: [agentOf('dispatcher', 0, [spanOf('frame', 4, 0, 9, { stage: -1, attempt: 2 })])] },
      new Set([4]),
    );
    expect(again.traceEvents.at(-1)?.name).toBe('frame 4, attempt 2');
    expect(brokenRules(again)).toEqual([]);
  });

  it('is JSON that names its unit and what it is of', () => {
    const parsed = JSON.parse(JSON.stringify(file));
    expect(parsed).toMatchObject({ displayTimeUnit: 'ms', otherData: { deployment: 'det', epoch: 7, frames: 2 } });
  });
});
