import { describe, expect, it } from 'vitest';
import type { Trace } from '../broker/messages.js';
import type { Epoch } from './epochs.js';
import type { ReadyFrame } from './join.js';
import type { Seat } from './seats.js';
import { Tracer } from './tracing.js';

const seat = { index: 3, stage: 2, replica: 0, part: 1 } as unknown as Seat;
const WISH: Trace = { deployment: 'd', frames: 2, forMs: 1000, collect: false };

function tracerAt() {
  const clock = { ms: 0 };
  const tracer = new Tracer('pi-1', () => clock.ms);
  const run = (frame: number, readyMs: number, startMs: number, endMs: number, deployment = 'd'): void => {
    const epoch = { deployment } as Epoch;
    tracer.ran({ epoch, frame: { frame, attempt: 1, seat } as unknown as ReadyFrame }, { readyMs, startMs, endMs });
  };
  return { clock, tracer, run };
}

describe('a trace', () => {
  it('has what a seat did for a frame, from the first box to the last byte', () => {
    const { clock, tracer, run } = tracerAt();
    tracer.start(WISH);
    clock.ms = 10;
    tracer.arrived('d', { frame: 7, attempt: 1 }, seat, 100);
    clock.ms = 12.5;
    tracer.arrived('d', { frame: 7, attempt: 1 }, seat, 50);
    run(7, 12.5, 14, 20);
    clock.ms = 21;
    const target = { peer: 'pi-2', wire: { toStage: 4, toPart: 1 } };
    tracer.left('serialise', 'd', { frame: 7, attempt: 1 }, seat, 20.25, target, 400);
    clock.ms = 22;
    tracer.left('send', 'd', { frame: 7, attempt: 1 }, seat, 21, target, 400);
    const nowhere = { peer: '', toStage: -1, toPart: 0 };
    const of = { frame: 7, attempt: 1, stage: 2, replica: 0, part: 1 };
    expect(tracer.read('d')).toMatchObject({ agent: 'pi-1', frames: 1, dropped: 0, why: '' });
    expect(tracer.read('d').spans).toEqual([
      { kind: 'receive', ...of, ...nowhere, startUs: 10_000, durationUs: 2500, bytes: 150 },
      { kind: 'wait', ...of, ...nowhere, startUs: 12_500, durationUs: 1500, bytes: 0 },
      { kind: 'compute', ...of, ...nowhere, startUs: 14_000, durationUs: 6000, bytes: 0 },
      { kind: 'serialise', ...of, peer: 'pi-2', toStage: 4, toPart: 1, startUs: 20_250, durationUs: 750, bytes: 400 },
      { kind: 'send', ...of, peer: 'pi-2', toStage: 4, toPart: 1, startUs: 21_000, durationUs: 1000, bytes: 400 },
    ]);
  });

  it('notes nothing before it is asked for, of other deployments, after its time, or of more frames than it may', () => {
    const { clock, tracer, run } = tracerAt();
    run(1, 0, 1, 2);
    expect(tracer.read('d')).toMatchObject({ spans: [], why: expect.stringContaining('was not asked') });
    tracer.start(WISH);
    run(1, 0, 1, 2, 'other');
    for (let frame = 1; frame <= 500; frame++) run(frame, 0, 1, 2);
    const { frames, spans } = tracer.read('d');
    expect(frames).toBe(2 + 64);
    expect(spans).toHaveLength(2 * (2 + 64));
    tracer.start(WISH);
    clock.ms += 2000;
    run(1, 0, 1, 2);
    expect(tracer.read('d').spans).toEqual([]);
    expect(tracer.read('other').why).not.toBe('');
  });

  it('has a bound, and counts what it left out', () => {
    const { tracer, run } = tracerAt();
    tracer.start(WISH);
    for (let i = 0; i < 10_100; i++) run(1, 0, 1, 2);
    expect(tracer.read('d').spans).toHaveLength(20_000);
    expect(tracer.read('d').dropped).toBe(200);
  });
});
