import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allocTensor } from '../broker/tensor.js';
import { calibrationFrames } from './calibrate.js';
import { deployRequest } from './deploy-options.js';
import { writeNpy } from './npy.js';

let folder = '';
const file = (name: string): string => path.join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-calibrate-'));
  for (const name of ['b.npy', 'a.npy']) writeFileSync(file(name), writeNpy(allocTensor('float32', [1, name.charCodeAt(0)])));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const IMAGE = { input: 'x', height: 4, width: 6, order: 'rgb', mean: [0, 0, 0], std: [1, 1, 1] };

describe('--calibrate', () => {
  it('takes a file, named inputs and all files of a folder in their order', async () => {
    const frames = await calibrationFrames({ calibrate: [file('b.npy'), `x=${file('a.npy')},y=${file('b.npy')}`, folder] }, []);
    expect(frames.map((frame) => Object.entries(frame).map(([input, { dims }]) => `${input}:${dims.join()}`))).toEqual([
      [':1,98'],
      ['x:1,97', 'y:1,98'],
      [':1,97'],
      [':1,98'],
    ]);
    expect(await calibrationFrames({}, [])).toEqual([]);
  });

  it('fits pictures to the declared size, and needs a declaration for them', async () => {
    const { default: sharp } = await import('sharp');
    const picture = file('p.png');
    await sharp({ create: { width: 10, height: 10, channels: 3, background: '#204060' } })
      .png()
      .toFile(picture);
    const [frame] = await calibrationFrames({ calibrate: [picture] }, [IMAGE]);
    expect(frame?.['']).toMatchObject({ dtype: 'uint8', dims: [4, 6, 3] });
    expect((await calibrationFrames({ calibrate: [`x=${picture}`] }, [IMAGE]))[0]?.x?.dims).toEqual([4, 6, 3]);
    await expect(calibrationFrames({ calibrate: [picture] }, [])).rejects.toMatchObject({ code: 'FRAME_INVALID' });
    rmSync(picture);
  });

  it('refuses what is not there', async () => {
    await expect(calibrationFrames({ calibrate: [file('none.npy')] }, [])).rejects.toMatchObject({
      code: expect.stringMatching(/^[A-Z_]+$/),
    });
    const empty = mkdtempSync(path.join(folder, '.empty-'));
    await expect(calibrationFrames({ calibrate: [empty] }, [])).rejects.toMatchObject({ code: 'USAGE' });
  });
});

describe('--max-error', () => {
  const request = (options: Record<string, string | string[]>) => deployRequest('net', 'net.onnx', options, false);

  it('is a number from 0 to 1, and off unless it is given', () => {
    expect(request({}).maxError).toBe(0);
    expect(request({ maxError: '0.01' }).maxError).toBe(0.01);
    expect(request({ maxError: '1' }).maxError).toBe(1);
  });

  it.each(['-1', 'NaN', '1.01', 'Infinity', '', ' ', '1%', 'abc'])('refuses %j', (maxError) => {
    expect(() => request({ maxError })).toThrowError(expect.objectContaining({ code: 'USAGE' }));
  });

  it('is needed for calibration inputs to mean anything', () => {
    expect(() => request({ calibrate: ['a.npy'] })).toThrowError(expect.objectContaining({ code: 'USAGE' }));
  });
});
