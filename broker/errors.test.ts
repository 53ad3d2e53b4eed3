import { expect, it } from 'vitest';
import { ChairError, isChairError, isErrorCode } from './errors.js';

it('takes codes of ours for codes, and nothing that every object has', () => {
  expect(isErrorCode('INTERNAL')).toBe(true);
  for (const code of ['toString', 'constructor', '__proto__', 'hasOwnProperty', 'internal', '']) {
    expect(isErrorCode(code), code).toBe(false);
    expect(isChairError(Object.assign(new Error('what'), { code })), code).toBe(false);
  }
  expect(isChairError(new ChairError('STOPPED', 'what'))).toBe(true);
  expect(isChairError(new ChairError('STOPPED', 'what'), 'INTERNAL')).toBe(false);
});
