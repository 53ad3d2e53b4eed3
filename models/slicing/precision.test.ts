import { describe, expect, it } from 'vitest';
import type { Encoding } from '../../broker/plan.js';
import { chooseEncodings, type WireGroup } from './precision.js';

/** Errors that add up by wire, but for pairs that make each other worse. */
function world(single: Readonly<Record<Encoding, readonly number[]>>, worse: (encodings: readonly Encoding[]) => number = () => 0) {
  const asked: string[] = [];
  const measure = async (encodings: readonly Encoding[]): Promise<number> => {
    asked.push(encodings.map((encoding) => encoding[0]).join(''));
    return encodings.reduce((sum, encoding, w) => sum + (single[encoding][w] ?? 0), worse(encodings));
  };
  return { measure, asked };
}

const group = (...wires: number[]): WireGroup => ({ wires, candidates: ['uint8', 'float16'] });
const ERRORS = { raw: [0, 0, 0], uint8: [0.004, 0.004, 0.05], float16: [0.0001, 0.0001, 0.001] };

describe('the choice of encodings', () => {
  it('takes the shortest that the budget allows, in the order of the groups', async () => {
    const { measure } = world(ERRORS);
    const choice = await chooseEncodings(measure, 3, [group(0), group(1), group(2)], 0.01);
    expect(choice.encodings).toEqual(['uint8', 'uint8', 'float16']);
    expect(choice.error).toBeCloseTo(0.009, 12);
    expect(choice.groups.map(({ encoding, error }) => [encoding, error])).toEqual([
      ['uint8', 0.004],
      ['uint8', 0.004],
      ['float16', 0.001],
    ]);
    expect(choice.groups[2]?.why).toBe('uint8 alone gives 0.05');
  });

  it('gives back what is too much together, though each alone is allowed', async () => {
    const both = (encodings: readonly Encoding[]): number => (encodings[0] === 'uint8' && encodings[1] === 'uint8' ? 1 : 0);
    const { measure } = world(ERRORS, both);
    const choice = await chooseEncodings(measure, 3, [group(0), group(1)], 0.01);
    expect(choice.encodings).toEqual(['uint8', 'float16', 'raw']);
    expect(choice.error).toBeCloseTo(0.0041, 12);
    expect(choice.groups[1]?.why).toBe('uint8 with the others gives 1');
  });

  it('leaves everything raw under a budget that nothing meets, with an error of 0, and says what it measured', async () => {
    const { measure } = world(ERRORS);
    const choice = await chooseEncodings(measure, 3, [group(0, 1), group(2)], 1e-5);
    expect(choice.encodings).toEqual(['raw', 'raw', 'raw']);
    expect(choice.error).toBe(0);
    expect(choice.groups[0]?.why).toBe('uint8 alone gives 0.008, float16 alone gives 0.0002');
  });

  it('never takes an assignment that was not measured as a whole', async () => {
    const { measure, asked } = world(ERRORS, (encodings) => (encodings.filter((e) => e !== 'raw').length === 3 ? 0.5 : 0));
    const { encodings } = await chooseEncodings(measure, 3, [group(0), group(1), group(2)], 0.02);
    expect(encodings).toEqual(['uint8', 'uint8', 'raw']);
    expect(asked).toContain(encodings.map((encoding) => encoding[0]).join(''));
  });

  it('does not take what gives no usable output', async () => {
    const choice = await chooseEncodings(async () => Number.POSITIVE_INFINITY, 1, [group(0)], 1);
    expect(choice.encodings).toEqual(['raw']);
    expect(choice.groups[0]?.why).toContain('no usable output');
  });
});
