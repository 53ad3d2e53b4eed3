import { describe, expect, it } from 'vitest';
import type { TraceReport, TraceSpan, TraceSpans } from '../broker/messages.js';
import { traceFile, wholeFrames } from './trace-file.js';

const spanOf = (kind: string, frame: number, startUs: number, durationUs: number, more: Partial<TraceSpan> = {}): TraceSpan => ({
  ...{ kind, frame, attempt: 1, stage: 0, replica: 0, part: 0, peer: '', startUs, durationUs, bytes: 0 },
  ...more,
});
const agentOf = (agent: string, offsetUs: number, spans: readonly TraceSpan[], more: Partial<TraceSpans> = {}): TraceSpans => ({
  ...{ agent, offsetUs, errorUs: 250, frames: 1, dropped: 0, why: '', spans },
  ...more,
});

/** Two agents whose clocks are far from the gateway's; frames 1 and 2 are whole, 3 is not. */
const report: TraceReport = {
  deployment: 'det',
  epoch: 7,
  agents: [
    agentOf('dispatcher', 0, [
      spanOf('frame', 1, 1_000_000, 30_000, { stage: -1 }),
      spanOf('frame', 2, 1_010_000, 30_000, { stage: -1 }),
      spanOf('send', 1, 1_000_500, 400, { stage: -1, peer: 'a' }),
    ]),
    agentOf('a', 900_000, [
      spanOf('receive', 1, 101_000, 0),
      spanOf('compute', 1, 102_000, 9000),
      spanOf('compute', 2, 112_000, 9000),
      spanOf('compute', 3, 122_000, 9000),
      spanOf('send', 1, 111_500, 500, { peer: 'b' }),
      spanOf('wait', 1, 101_000, 1000),
      spanOf('wait', 2, 101_500, 10_500),
    ]),
    agentOf('b', -5_000_000, [spanOf('receive', 1, 6_012_600, 300, { stage: 1 }), spanOf('compute', 1, 6_013_000, 5000, { stage: 1 })], {
      errorUs: 1200,
    }),
    agentOf('c', 0, [], { why: 'no reply' }),
  ],
};

const file = traceFile(report, wholeFrames(report, 100));
const complete = file.traceEvents.filter(({ ph }) => ph === 'X');

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
    expect(starts('compute', 1)).toEqual([2000, 13_000]);
    for (const { ts = -1, dur = -1 } of complete) {
      expect(ts).toBeGreaterThanOrEqual(0);
      expect(dur).toBeGreaterThanOrEqual(0);
    }
  });

  it('says beside each agent how far off its clock may be, and why one has nothing', () => {
    const names = file.traceEvents.flatMap(({ name, args }) => (name === 'process_name' ? [args?.name] : []));
    expect(names).toEqual(['gateway', 'a (clock +-0.25 ms)', 'b (clock +-1.20 ms)', 'c (no trace: no reply)']);
    expect(file.otherData['largest clock error, ms']).toBe(1.2);
  });

  it('never has two events of a row that overlap', () => {
    const rows = new Map<string, { ts: number; end: number }[]>();
    for (const { pid, tid, ts = 0, dur = 0 } of complete) {
      const key = `${pid} ${tid}`;
      rows.set(key, [...(rows.get(key) ?? []), { ts, end: ts + dur }]);
    }
    for (const events of rows.values()) {
      events.sort((x, y) => x.ts - y.ts);
      for (const [i, one] of events.entries()) expect(one.ts).toBeGreaterThanOrEqual(events[i - 1]?.end ?? 0);
    }
    const waits = new Set(complete.filter(({ cat, pid }) => cat === 'wait' && pid === 2).map(({ tid }) => tid));
    expect(waits.size).toBe(2);
  });

  it('draws an arrow from a send to the stage that receives it', () => {
    const [from] = file.traceEvents.filter(({ ph }) => ph === 's');
    const arrows = file.traceEvents.filter(({ ph }) => ph === 's' || ph === 'f');
    for (const end of arrows.filter(({ ph }) => ph === 'f')) expect(arrows.some(({ ph, id }) => ph === 's' && id === end.id)).toBe(true);
    expect(arrows.filter(({ ph }) => ph === 'f')).toHaveLength(2);
    expect(from?.ts).toBe(500);
  });

  it('is JSON that names its unit and what it is of', () => {
    const parsed = JSON.parse(JSON.stringify(file));
    expect(parsed).toMatchObject({ displayTimeUnit: 'ms', otherData: { deployment: 'det', epoch: 7, frames: 2 } });
  });
});
