import { describe, expect, it } from 'vitest';
import { isChairError } from '../broker/errors.js';
import type { SimulationResult } from '../scheduler/simulate/options.js';
import { parseIncidents, parseLoad } from './simulate-options.js';
import { simulationText, timelineSvg } from './simulate-text.js';

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return isChairError(error) ? error.code : String(error);
  }
  return '';
}

describe('simulate', () => {
  it('reads incidents, in order of time', () => {
    expect(parseIncidents({ fail: ['pi-2@20'], slow: ['pi-1@1.5s:0.5'], slowLink: ['pi-3@2:0.1'], return: ['pi-2@40'] })).toEqual([
      { kind: 'speed', agent: 'pi-1', atMs: 1500, factor: 0.5 },
      { kind: 'link', agent: 'pi-3', atMs: 2000, factor: 0.1 },
      { kind: 'crash', agent: 'pi-2', atMs: 20_000 },
      { kind: 'return', agent: 'pi-2', atMs: 40_000 },
    ]);
  });

  it.each(['pi', 'pi@', '@3', 'pi@x', 'pi@-1', 'pi@3:2', 'a b@3'])('refuses --fail %s', (text) => {
    expect(codeOf(() => parseIncidents({ fail: [text] }))).toBe('USAGE');
  });

  it.each(['pi@3', 'pi@3:0', 'pi@3:-1', 'pi@3:x'])('refuses --slow %s', (text) => {
    expect(codeOf(() => parseIncidents({ slow: [text] }))).toBe('USAGE');
  });

  it('takes frames in one way', () => {
    expect(parseLoad({}, 7)).toEqual({ kind: 'closed', inFlight: 7 });
    expect(parseLoad({ rate: '2.5' }, 7)).toEqual({ kind: 'rate', framesPerSecond: 2.5 });
    expect(parseLoad({ poisson: '3' }, 7)).toEqual({ kind: 'poisson', framesPerSecond: 3 });
    for (const wrong of [{ rate: '0' }, { rate: '-1' }, { rate: 'Infinity' }, { poisson: 'NaN' }, { rate: '1', poisson: '1' }]) {
      expect(codeOf(() => parseLoad(wrong, 7))).toBe('USAGE');
    }
  });

  it('draws runs and messages of each device, and escapes names', () => {
    const span = { what: 'run' as const, frame: 1, stage: 0, fromMs: 0, toMs: 50 };
    const svg = timelineSvg('a <b>', [
      { ...span, who: 'pi-10' },
      { ...span, who: 'pi-2', what: 'up', fromMs: 50, toMs: 100 },
    ]);
    expect(svg).toContain('a &lt;b&gt;');
    expect(svg.match(/<rect /g)).toHaveLength(3);
    expect(svg.indexOf('pi-2')).toBeLessThan(svg.indexOf('>pi-10<'));
  });

  it('has room for long names, a time axis in round numbers, and says what thick and thin mean', () => {
    const ticks = (toMs: number) =>
      [...timelineSvg('a', [{ who: 'p', what: 'run' as const, frame: 1, stage: 0, fromMs: 0, toMs }]).matchAll(/>([\d.]+) ms</g)].map(
        ([, ms]) => ms,
      );
    expect(ticks(50)).toEqual(['0', '10', '20', '30', '40', '50']);
    expect(ticks(1234)).toEqual(['0', '500', '1000']);
    expect(ticks(0.9)).toEqual(['0', '0.2', '0.4', '0.6', '0.8']);
    const who = 'kitchen-window-camera-north-left-7';
    const svg = timelineSvg('a', [{ who, what: 'run' as const, frame: 1, stage: 0, fromMs: 0, toMs: 5 }]);
    expect(svg).toContain('camera-north-left-7<');
    expect(svg).toContain('stage 1: 0.0 to 5.0 ms');
    expect(svg).toContain('runs a part of the frame');
    const many = Array.from({ length: 400 }, (_, frame) => ({ who, what: 'run' as const, frame, stage: 0, fromMs: 0, toMs: 20_000 }));
    expect(timelineSvg('a', many).match(/<title>/g)).toHaveLength(24);
    expect(timelineSvg('a', many)).toContain('>10 s<');
  });

  it('says what failed, and which incident came too late to matter', () => {
    const incident = { kind: 'crash' as const, agent: 'pi-1', atMs: 9000 };
    const result: SimulationResult = {
      ...{ fps: 5, durationMs: 8000, steps: 1, events: [], endedAtMs: [], latenciesMs: [], spans: [], resources: [] },
      latencyMs: { mean: 1, p50: 1, p95: 1, p99: 1, most: 1 },
      frames: { sent: 10, completed: 8, failed: 2, reissued: 1 },
      errors: { FRAME_DEADLINE: 2 },
      interruptions: [{ incident, gapMs: 0, usualMs: 200 }],
      predicted: { fps: 6, latencyMs: 100, bottleneck: { kind: 'compute', who: 'pi-1', ms: 1 } },
      traffic: { messages: 20, bytes: 1e6 },
    };
    const text = simulationText({ planner: 'auto', stages: ['whole on pi-1'], inFlight: 2, notes: [], result }, 120);
    expect(text).toContain('2 failed (FRAME_DEADLINE 2), 1 issued again');
    expect(text).toContain('after the last frame');
    expect(text).toMatch(/latency, median +1\.0 ms/);
    const frames = { sent: 2, completed: 0, failed: 2, reissued: 0 };
    const none = simulationText({ planner: 'auto', stages: [], inFlight: 2, notes: [], result: { ...result, frames } }, 120);
    // Nothing was answered: 0 ms would be the best there is.
    expect(none).toMatch(/latency, median +- /);
  });
});
