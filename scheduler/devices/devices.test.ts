import { describe, expect, it } from 'vitest';
import { isChairError } from '../../broker/errors.js';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { DEPLOY_DEFAULTS } from '../deploy-defaults.js';
import { factsOf } from '../model-library.js';
import { computeMs, profiledMs } from '../planners/cost.js';
import type { Device } from '../planners/problem.js';
import { expand, parseDeviceFile } from './device-file.js';
import { planOffline } from './offline.js';
import { denseMs, FITS, PROFILES, wholeMs } from './profile.js';
import { NCNN_4_THREADS, PI3_2018, PUBLISHED_LINKS } from './published.js';

const MIB = 2 ** 20;
const models = new Map(
  ['alexnet', 'vgg16', 'resnet18', 'mobilenetv2'].map((name) => {
    const model = structureOf(drawZoo(name));
    return [name, { model, facts: factsOf(model) }];
  }),
);
const known = (name: string) => {
  const found = models.get(name);
  if (found === undefined) throw new Error(name);
  return found;
};
const fleet = (text: string, name = 'alexnet') => expand(parseDeviceFile(text), known(name).model, known(name).facts);

function refusal(text: string): string {
  try {
    fleet(text);
  } catch (error) {
    if (isChairError(error, 'DEVICES_INVALID')) return error.message;
    throw error;
  }
  throw new Error('it was taken');
}

/** The whole model on the first device, ms. */
function alone(device: Device | undefined, name: string): number {
  const { facts } = known(name);
  const spec = { nodes: [0, facts.blocks.at(-1)?.nodes[1] ?? 0] as const, cut: 'whole' as const, shares: [1] };
  const cut = facts.cut([spec]);
  const part = 'refused' in cut ? undefined : cut.stages[0]?.parts[0];
  if (device === undefined || part === undefined) throw new Error('nothing to compute');
  return computeMs(device, part, spec, 1);
}

describe('planning without a gateway', () => {
  it('says that a plan file with a largest error is not reckoned with: shorter bytes are measured on outputs', async () => {
    const { model, facts } = known('alexnet');
    const devices = parseDeviceFile('devices: [{profile: pi4, name: a}]');
    const plan = (maxError: number) =>
      JSON.stringify({ version: 1, model: model.sha256, maxError, stages: [{ blocks: [0, facts.blocks.length], agents: ['a'] }] });
    const report = (maxError: number) =>
      planOffline({
        request: { ...DEPLOY_DEFAULTS, name: 'n', model: 'alexnet', plan: plan(maxError) },
        manual: undefined,
        ...{ model, facts, devices },
      });
    expect((await report(0.01)).basis).toContain('maxError 0.01 is not reckoned with');
    expect((await report(0)).basis).not.toContain('maxError');
  });
});

describe('a device file', () => {
  it('lists devices by profile, count, memory, link and host', () => {
    const { devices, links } = fleet(`
link: {rate: 100mbit, latency: 2ms}
sharedMedium: true
gateway: {link: gigabit}
devices:
  - {profile: pi4, count: 2, memory: 2g}
  - {profile: pi5, name: fast, link: {rate: 1gbit, latency: 0}, host: rack}
  - {name: old, macsPerSecond: 1.0e9, memory: 512m, count: 1, speed: 0.5}
`);
    expect(devices.map(({ agent }) => agent)).toEqual(['pi4-1', 'pi4-2', 'fast', 'old']);
    expect(devices[0]?.memoryBytes).toBe(Math.round(0.85 * 2048 * MIB));
    expect(devices[2]).toMatchObject({ host: 'rack', link: { upBytesPerSecond: 125e6, latencyMs: 0 } });
    expect(devices[3]).toMatchObject({ macsPerSecond: 0.5e9 });
    expect(links).toMatchObject({ usual: { bytesPerSecond: 12.5e6, latencyMs: 2 }, sharedBytesPerSecond: 12.5e6 });
    expect(links.gateway).toMatchObject({ downBytesPerSecond: 125e6, latencyMs: 0.5 });
  });

  it('takes JSON too, and finds free names for devices that have none', () => {
    const { devices } = fleet(
      JSON.stringify({
        devices: [
          { profile: 'pi4', count: 2 },
          { profile: 'pi4', count: 2 },
        ],
      }),
    );
    expect(devices.map(({ agent }) => agent)).toEqual(['pi4-1', 'pi4-2', 'pi4-3', 'pi4-4']);
  });

  it('takes the links that the profiles were published with', () => {
    expect(fleet('devices: [{profile: pi3-2018}]').links.usual).toMatchObject({ bytesPerSecond: 5e6, latencyMs: 2 });
    const mixed = fleet('devices: [{profile: pi4}, {profile: pi3-2018}]');
    expect(mixed.links.usual.bytesPerSecond).toBe(125e6);
    expect(mixed.devices.map(({ link }) => link?.upBytesPerSecond)).toEqual([undefined, 5e6]);
    expect(fleet('devices: [{profile: pi3-2018}]\nlink: wifi-2018').links.usual.bytesPerSecond).toBeCloseTo(7.78e6, -4);
  });

  it.each([
    ['garbage', '\u0000\u0001: [', 'not readable'],
    ['no devices', 'link: gigabit', 'wrong at devices'],
    ['an empty list', 'devices: []', 'wrong at devices'],
    ['an unknown profile', 'devices: [{profile: pi3}]', 'pi3-2018, pi4, pi5'],
    ['an unknown key', 'devices: [{profile: pi4, colour: red}]', 'colour'],
    [
      'a key of plan files, and says which there are',
      'version: 1\ndevices: [{profile: pi4}]',
      'devices, link, gateway, sharedMedium; got "version"',
    ],
    [
      'an unknown key of the gateway, and says which there are',
      'devices: [{profile: pi4}]\ngateway: {link: gigabit, speed: 1}',
      'keys out of link; got "speed"',
    ],
    ['neither profile nor speed', 'devices: [{count: 2}]', 'macsPerSecond and memory'],
    ['both of them', 'devices: [{profile: pi4, macsPerSecond: 1000000}]', 'not both'],
    ['no memory', 'devices: [{profile: pi4, memory: none}]', 'memory such as'],
    ['a count of nothing', 'devices: [{profile: pi4, count: 0}]', 'devices[0].count; expected a number of at least 1'],
    ['a count that is no whole number', 'devices: [{profile: pi4, count: 1.5}]', 'expected a whole number; got 1.5'],
    ['a speed beyond all', 'devices: [{profile: pi4, speed: 1.0e+308}]', 'expected a number of at most 1000'],
    ['no device', 'devices: []', 'expected a list of at least 1 items'],
    ['a link that is too fast', 'devices: [{profile: pi4}]\nlink: {rate: 1000000gbit}', 'to 8000gbit'],
    ['a link without speed', 'devices: [{profile: pi4}]\nlink: {rate: 0mbit}', 'link'],
    ['a negative latency', 'devices: [{profile: pi4}]\nlink: {rate: 1mbit, latency: -3}', 'link'],
    ['one name twice', 'devices: [{profile: pi4, name: a}, {profile: pi4, name: a}]', '"a" twice'],
    [
      'the name of the gateway',
      'devices: [{profile: pi4, name: dispatcher}]',
      'another name: this is what plans call the gateway; got "dispatcher"',
    ],
    ['too many', 'devices: [{profile: pi4, count: 10000}, {profile: pi4, count: 10000}]', 'too many'],
    ['a bomb of aliases', 'a: &a [1,1]\nb: &b [*a,*a]\ndevices: *b', 'not readable'],
    ['a text that never ends', 'x'.repeat(2 << 20), 'too long'],
  ])('is refused with a coded error: %s', (_, text, said) => {
    expect(refusal(text)).toContain(said);
  });
});

describe('the profile pi3-2018', () => {
  it('gives the published times where they were published', () => {
    for (const { inputs, outputs, seconds } of PI3_2018.dense)
      expect(denseMs(PI3_2018.dense, [], inputs, outputs)).toBeCloseTo(1000 * seconds, 6);
    const { devices, notes } = fleet('devices: [{profile: pi3-2018}]', 'vgg16');
    const [pi] = devices;
    const { model } = known('vgg16');
    const dense = model.nodes.flatMap((node, at) => (node.op === 'Gemm' ? [at] : []));
    const [fc1 = 0] = dense;
    const table = pi?.profile ?? { name: '', rows: [] };
    expect(profiledMs(table, { nodes: [0, fc1], cut: 'whole' }, 1)).toBeCloseTo(7290, 3);
    expect(profiledMs(table, { nodes: [fc1, fc1 + 1], cut: 'whole' }, 1)).toBe(2480);
    // Half of 25,088 x 4,096 weights are those of 6,690 outputs of 7,680 inputs.
    expect(profiledMs(table, { nodes: [fc1, fc1 + 1], cut: 'channels' }, 0.5)).toBeCloseTo(280.3, 0);
    expect(notes.join()).toContain('Hadidi');
  });

  it('holds what did not swap, and no more', () => {
    const [pi] = fleet('devices: [{profile: pi3-2018}]').devices;
    expect(pi?.memoryBytes).toBe((300 + 112) * MIB);
    expect(fleet('devices: [{profile: pi3-2018, memory: 512m}]').devices[0]?.memoryBytes).toBe((150 + 112) * MIB);
  });

  it('is as slow as the file says', () => {
    const [usual, slow] = fleet('devices: [{profile: pi3-2018}, {profile: pi3-2018, speed: 0.5}]').devices;
    expect(alone(slow, 'alexnet')).toBeCloseTo(2 * alone(usual, 'alexnet'), 3);
  });
});

describe('the profiles pi4 and pi5', () => {
  const cases = NCNN_4_THREADS.networks.flatMap((network) =>
    (['pi4', 'pi5'] as const).map((profile) => [profile, network.name.toLowerCase(), network[profile]] as const),
  );

  it.each(cases.filter(([, name]) => models.has(name)))('%s takes the published time for %s: %s ms', (profile, name, ms) => {
    const { devices, notes } = fleet(`devices: [{profile: ${profile}}]`, name);
    expect(alone(devices[0], name)).toBeCloseTo(ms, 3);
    expect(notes.join()).toContain('published');
  });

  it('takes a fitted speed for a model that nobody published, and says by how much the fit misses those that were', () => {
    const model = structureOf(drawZoo('resnet18', { scale: 0.5 }));
    const { notes } = expand(parseDeviceFile('devices: [{profile: pi4}]'), model, factsOf(model));
    expect(notes.join()).toContain('no published time of this model');
    const misses = cases
      .filter(([, name]) => models.has(name))
      .map(([profile, name, ms]) => Math.abs(wholeMs(FITS[profile], known(name).facts) / ms - 1));
    expect(Math.max(...misses)).toBeLessThan(0.235);
    expect(Math.max(...misses)).toBeGreaterThan(0.2);
  });

  it('names its source and a link that exists', () => {
    for (const { source, link } of PROFILES.values()) {
      expect(source).not.toBe('');
      expect(PUBLISHED_LINKS[link].bytesPerSecond).toBeGreaterThan(0);
    }
  });
});
