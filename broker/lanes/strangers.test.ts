import { expect, it } from 'vitest';
import { Strangers } from './strangers.js';

it('strangers are counted, and no more of them kept than a few hundred: whoever comes again stays', () => {
  const strangers = new Strangers();
  expect([1, 2, 3].map(() => strangers.came('a'))).toEqual([1, 2, 3]);
  for (let i = 0; i < 10_000; i++) {
    strangers.came(`alice-${i}`);
    if (i % 100 === 0) strangers.came('a');
  }
  expect(strangers.size).toBe(256);
  expect(strangers.came('alice-0')).toBe(1);
  expect(strangers.came('a')).toBe(104);
  strangers.forget('a');
  expect(strangers.came('a')).toBe(1);
});
