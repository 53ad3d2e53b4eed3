import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type FlashFlags, readRequest } from './fleet.js';
import { testFolder } from './test-image.js';

const { folder, remove } = testFolder();
afterAll(remove);
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBx4Wp1PpH0Qm5b6kG5a0bq0nZ4s2yY1j0mQ3v5fYk8e me@laptop';
mkdirSync(path.join(folder, 'keys'));
writeFileSync(path.join(folder, 'keys/id.pub'), `${KEY}\n`);
writeFileSync(path.join(folder, 'wifi.txt'), 'correct horse\n');

const never = async (): Promise<string> => {
  throw new Error('nobody should be asked');
};
const flags = (more: FlashFlags = {}): FlashFlags => ({ image: 'os.img', bundle: 'b.tgz', name: 'pi-1', out: 'pi-1.img', ...more });
const read = (more: FlashFlags = {}, ask = never) => readRequest(flags(more), 'default', ask);

function fleetFile(text: string): string {
  const file = path.join(folder, 'fleet.yaml');
  writeFileSync(file, text);
  return file;
}
const readFleet = (text: string, more: FlashFlags = {}) => readRequest({ fleet: fleetFile(text), ...more }, 'lab', never);

describe('a request from flags', () => {
  it('is one card with nothing that was not asked for', async () => {
    expect(await read()).toEqual({
      image: 'os.img',
      bundle: 'b.tgz',
      targets: [{ card: { name: 'pi-1', cluster: 'default', user: 'pi', sshKeys: [], timeServers: [] }, out: 'pi-1.img' }],
    });
  });

  it.each([
    ['cards/', ['cards/pi-1.img', 'cards/pi-2.img']],
    ['c-%02d.img', ['c-01.img', 'c-02.img']],
  ])('numbers several cards: --out %s', async (out, expected) => {
    const { targets } = await read({ name: 'pi-%d', count: '2', out });
    expect(targets.map((t) => t.out)).toEqual(expected);
    expect(targets.map((t) => t.card.name)).toEqual(['pi-1', 'pi-2']);
  });

  it('has no output for a device', async () => {
    const { targets, device } = await readRequest(
      { image: 'i', bundle: 'b', name: 'pi-%d', count: '2', device: '/dev/sdb' },
      'default',
      never,
    );
    expect(device).toBe('/dev/sdb');
    expect(targets.map((t) => t.out)).toEqual([undefined, undefined]);
  });

  it("asks for a network's password once, and only when nothing else is wrong", async () => {
    let asked = 0;
    const ask = async (): Promise<string> => {
      asked++;
      return 'correct horse';
    };
    const { targets } = await read({ name: 'pi-%d', count: '3', out: 'x/', wifi: 'home', wifiCountry: 'DE' }, ask);
    expect(new Set(targets.map((t) => t.card.wifi?.key)).size).toBe(1);
    expect(asked).toBe(1);
    await expect(read({ wifi: 'home' }, ask)).rejects.toThrow('--wifi-country');
    expect(asked).toBe(1);
  });

  it('reads password and key from files', async () => {
    const { targets } = await read({
      wifi: 'home',
      wifiCountry: 'DE',
      wifiPasswordFile: path.join(folder, 'wifi.txt'),
      sshKey: path.join(folder, 'keys/id.pub'),
    });
    expect(targets[0]?.card.sshKeys).toEqual([KEY]);
    expect(targets[0]?.card.wifi?.key).toMatch(/^[0-9a-f]{64}$/);
  });

  it.each<[string, FlashFlags, string]>([
    ['no name', { name: undefined } as unknown as FlashFlags, '--name is missing'],
    ['no pattern for several', { count: '2', out: 'x/' }, 'one %d'],
    ['one file for several', { name: 'pi-%d', count: '2', out: 'x.img' }, 'there are 2 cards'],
    ['a count that is none', { count: '1e1' }, '--count is wrong'],
    ['a thousand and one', { count: '1001' }, '--count is wrong'],
    ['a name that is no host name', { name: 'pi_1' }, 'letters, digits and dashes'],
    ['a gateway with a port', { gateway: 'gw:1883' }, '--gateway'],
    ['a key that is not there', { sshKey: '/no/such/key.pub' }, 'cannot be read'],
    ['a country without a network', { wifiCountry: 'DE' }, '--wifi-country goes with --wifi'],
    ['a hidden nothing', { wifiHidden: true }, '--wifi-hidden goes with --wifi'],
    ['a user without a key', { user: 'anna' }, 'nobody can log in as anna'],
    ['no output', { out: undefined } as unknown as FlashFlags, '--out or --device'],
  ])('refuses %s', async (_what, more, text) => {
    await expect(read(more)).rejects.toThrow(text);
  });
});

describe('a fleet file', () => {
  const text = `image: os.img.xz
bundle: ../bundle.tgz
out: cards
gateway: gw.local
sshKey: keys/id.pub
wifi: { ssid: "12:30", country: DE, passwordFile: wifi.txt }
cards:
  - name: pi-1
  - name: pi-2
    gateway: 10.0.0.1
    wifi: false
    user: anna
    out: other/two.img
`;

  it('says what all cards have, and what one has instead; paths are from where it lies', async () => {
    const { image, bundle, targets } = await readFleet(text);
    expect([image, bundle]).toEqual([path.join(folder, 'os.img.xz'), path.join(folder, '../bundle.tgz')]);
    const [one, two] = targets;
    expect(one?.card).toMatchObject({
      name: 'pi-1',
      cluster: 'lab',
      gateway: 'gw.local',
      user: 'pi',
      sshKeys: [KEY],
      wifi: { ssid: '12:30', country: 'DE' },
    });
    expect(two?.card).toMatchObject({ name: 'pi-2', gateway: '10.0.0.1', user: 'anna', sshKeys: [KEY] });
    expect(two?.card.wifi).toBeUndefined();
    expect(targets.map((t) => t.out)).toEqual([path.join(folder, 'cards/pi-1.img'), path.join(folder, 'other/two.img')]);
  });

  it('gives way to flags', async () => {
    const { image, targets } = await readFleet(text, { image: 'mine.img', gateway: '10.9.9.9', out: 'here/' });
    expect(image).toBe('mine.img');
    expect(targets.map((t) => t.card.gateway)).toEqual(['10.9.9.9', '10.9.9.9']);
    expect(targets.map((t) => t.out)).toEqual(['here/pi-1.img', 'here/pi-2.img']);
  });

  it.each<[string, string, string]>([
    ['a key nobody knows', 'image: a\nbundle: b\nout: o\ncards: [{ name: pi-1, wfi: x }]\n', 'wfi'],
    ['no cards', 'image: a\nbundle: b\nout: o\n', 'cards'],
    ['an empty list', 'cards: []\n', 'cards'],
    ['what is no YAML', 'cards: [\n', 'YAML'],
    ['values within values', `cards: ${'['.repeat(100_000)}`, 'values within values'],
    ['a card that holds itself', 'image: a\nbundle: b\nout: o\ncards: &c [*c]\n', 'is wrong'],
    ['two cards of one name', 'image: a\nbundle: b\nout: o\ncards: [{ name: pi-1 }, { name: PI-1 }]\n', 'two cards have one name'],
    [
      'two cards of one output',
      'image: a\nbundle: b\ncards: [{ name: a, out: x.img }, { name: b, out: ./x.img }]\n',
      'two cards have one output',
    ],
  ])('is refused with %s', async (_what, content, message) => {
    await expect(readFleet(content)).rejects.toThrow(message);
  });

  it('is not mixed with a name', async () => {
    await expect(readFleet(text, { name: 'pi-9' })).rejects.toThrow('--name and --fleet contradict');
  });
});
