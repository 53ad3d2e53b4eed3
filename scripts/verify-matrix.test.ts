import { describe, expect, it } from 'vitest';
import type { VerifyReport } from '../models/slicing/verify.js';
import { BOUNDS, brokenBound, matrixCases, matrixModels } from './verify-matrix.js';

const report = { coveredMacsRatio: 0.95, totalMacsRatio: 1.1, maxPartMacsRatio: 0.3 } as VerifyReport;

describe('the matrix of verify:all', () => {
  it('holds every kind of cut with each number of parts, even and uneven', () => {
    const cases = matrixCases([2, 3, 4, 5, 6, 7]);
    expect(cases).toHaveLength(7 * 6 * 2);
    expect(cases).toContainEqual({ cut: 'rows:3', shares: [3, 2, 1] });
    expect(cases).toContainEqual({ cut: 'pair:7' });
  });

  it('holds the text models and the zoo, and each bound names a model of it', () => {
    const names = matrixModels(false).map((m) => m.name);
    expect(names.length).toBeGreaterThanOrEqual(7);
    for (const bound of BOUNDS) expect(names.some((name) => bound.model.test(name))).toBe(true);
  });

  it('says which bound a report breaks', () => {
    const name = 'vgg16-features';
    expect(brokenBound(name, { cut: 'rows:4' }, report)).toBeUndefined();
    expect(brokenBound(name, { cut: 'rows:4' }, { ...report, coveredMacsRatio: 0.8 })).toContain('covers 0.800');
    expect(brokenBound(name, { cut: 'rows:4' }, { ...report, totalMacsRatio: 2.7 })).toContain('2.700 times');
    expect(brokenBound(name, { cut: 'rows:4' }, { ...report, maxPartMacsRatio: 0.4 })).toContain('0.400');
    expect(brokenBound(name, { cut: 'rows:4', shares: [4, 3, 2, 1] }, { ...report, maxPartMacsRatio: 0.4 })).toBeUndefined();
    expect(brokenBound('PP-OCRv4 det 640x640', { cut: 'rows:4' }, { ...report, coveredMacsRatio: 0.81 })).toBeUndefined();
  });
});
