import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { PI3_2018 } from '../scheduler/devices/published.js';
import { isRefusal } from '../scheduler/planners/problem.js';
import { reproduce } from '../scheduler/simulate/reproductions.js';
import { REPRODUCTIONS, reproductionsDocument } from './reproduce.js';

describe('reproductions', () => {
  const reproduced = reproduce();
  const { first, later } = reproduced;

  it('stand in docs/reproductions.md as `npm run reproduce` writes it', () => {
    expect(readFileSync(REPRODUCTIONS, 'utf8')).toBe(reproductionsDocument(reproduced));
  });

  it('never exceed what the published times allow', () => {
    const { vgg16Convolutions, temporalStream, alexnet } = PI3_2018.tasks;
    const allowed: { [key: string]: number } = {
      'VGG16 11': 7 / vgg16Convolutions,
      'VGG16 9': 3 / (vgg16Convolutions * 0.78),
      'action recognition 8': 1 / temporalStream,
      'action recognition 5': 1 / temporalStream,
      'AlexNet 5': 1 / 0.203,
      'AlexNet 6': 2 / 0.203,
    };
    for (const { network, devices, published } of first) {
      const most = allowed[`${network} ${devices}`];
      if (most === undefined || published === undefined || isRefusal(published)) continue;
      expect(published.fps).toBeLessThan(1.03 * most);
      expect(published.fps).toBeGreaterThan(0.4 * most);
    }
    const whole = later.find(({ network }) => network === 'AlexNet')?.algorithm;
    if (whole === undefined || isRefusal(whole)) throw new Error('AlexNet fits one device');
    expect(whole.fps).toBeLessThan((1.03 * 4) / alexnet);
  });

  it('come within a quarter of the report for AlexNet on 5 and VGG16 on 9 and 11 with the published mapping', () => {
    for (const [network, devices] of [
      ['AlexNet', 5],
      ['VGG16', 9],
      ['VGG16', 11],
    ] as const) {
      const row = first.find((one) => one.network === network && one.devices === devices);
      if (row?.published === undefined || isRefusal(row.published)) throw new Error(`${network} on ${devices}`);
      expect(Math.abs(row.published.fps / row.reported - 1)).toBeLessThan(0.25);
    }
  });

  it('`auto` is at least as fast as the published algorithm on the same devices', () => {
    for (const { algorithm, auto } of [...first, ...later]) {
      if (isRefusal(algorithm)) continue;
      if (isRefusal(auto)) throw new Error(auto.reason);
      expect(auto.fps).toBeGreaterThan(0.97 * algorithm.fps);
    }
  });

  it('one device alone holds neither VGG16 nor action recognition', () => {
    expect(first.filter(({ devices }) => devices === 1).every(({ auto }) => isRefusal(auto))).toBe(true);
  });
});
