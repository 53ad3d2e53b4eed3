import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Acceptance } from './acceptance.js';

let lines: string[] = [];
let acceptance: Acceptance;

beforeEach(() => {
  vi.useFakeTimers();
  lines = [];
  acceptance = new Acceptance({ cluster: 'hom', broker: 'mqtt://gateway:1883', log: (line) => lines.push(line) });
});
afterEach(() => {
  acceptance.stop();
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

describe('being accepted', () => {
  it('is said once a term', () => {
    acceptance.asked();
    acceptance.accepted(3);
    acceptance.accepted(3);
    vi.advanceTimersByTime(60_000);
    acceptance.accepted(4);
    // A command of the scheduler before that took its time.
    acceptance.accepted(3);
    acceptance.accepted(4);
    expect(lines).toEqual(["accepted by the scheduler of cluster 'hom', term 3", "accepted by the scheduler of cluster 'hom', term 4"]);
  });

  it('names the cluster and the broker when nobody answers, once however often it asks', () => {
    acceptance.asked();
    vi.advanceTimersByTime(4000);
    acceptance.asked();
    expect(lines).toEqual([]);
    vi.advanceTimersByTime(60_000);
    expect(lines).toEqual([expect.stringContaining("no scheduler of cluster 'hom' answers at mqtt://gateway:1883")]);
  });

  it('is waited for anew when the broker was lost', () => {
    acceptance.accepted(3);
    acceptance.lost();
    acceptance.asked();
    vi.advanceTimersByTime(5000);
    acceptance.accepted(3);
    expect(lines).toHaveLength(3);
  });
});
