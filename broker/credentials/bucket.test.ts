import { describe, expect, it } from 'vitest';
import { Bucket, Buckets, networkOf } from './bucket.js';

describe('a bucket', () => {
  it('gives a burst, then one at a time, and never more than its burst', () => {
    const bucket = new Bucket({ burst: 3, everyMs: 100 });
    const take = (nowMs: number, tries: number): number => Array.from({ length: tries }, () => bucket.take(nowMs)).filter(Boolean).length;
    expect(take(0, 5)).toBe(3);
    expect(bucket.waitMs(50)).toBe(50);
    expect(take(250, 5)).toBe(2);
    expect(take(1_000_000, 9)).toBe(3);
    // A clock that goes back.
    expect(take(0, 2)).toBe(0);
    expect(take(100, 2)).toBe(1);
  });

  it('takes back what was taken for nothing, and never holds more than its burst', () => {
    const bucket = new Bucket({ burst: 2, everyMs: 1e9 });
    for (let i = 0; i < 10; i++) {
      expect(bucket.take(0)).toBe(true);
      bucket.give();
    }
    for (let i = 0; i < 10; i++) bucket.give();
    expect([bucket.take(0), bucket.take(0), bucket.take(0)]).toEqual([true, true, false]);
  });

  it('is one for each key; beyond a bound, new keys share one', () => {
    const buckets = new Buckets({ burst: 1, everyMs: 1e9 });
    expect(buckets.of('a', 0).take(0)).toBe(true);
    expect(buckets.of('a', 0).take(0)).toBe(false);
    expect(buckets.of('b', 0).take(0)).toBe(true);
    for (let i = 0; i < 20_000; i++) buckets.of(`k${i}`, 0).take(0);
    expect(buckets.of('new 1', 0).take(0)).toBe(false);
    expect(buckets.of('a', 0).take(0)).toBe(false);
    // What has filled up again is forgotten, and makes room.
    expect(buckets.of('new 2', 2e9).take(2e9)).toBe(true);
  });
});

it.each([
  ['192.168.1.7', '192.168.1.7'],
  ['::ffff:192.168.1.7', '192.168.1.7'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::9', '2001:db8:1:2::/64'],
  ['::1', '0:0:0:0::/64'],
  [undefined, ''],
])('the address %s counts as %s', (address, network) => {
  expect(networkOf(address)).toBe(network);
});
