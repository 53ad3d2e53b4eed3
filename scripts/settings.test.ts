import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listSettings } from './config.js';
import { loadSettings, nearest } from './settings.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-settings-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const write = (name: string, text: string): string => {
  writeFileSync(path.join(folder, name), text);
  return path.join(folder, name);
};

describe('settings', () => {
  it('come from flag, then environment, then file, then default', () => {
    write('musical-chair.yaml', 'gateway:\n  port: 1001\n  dispatcherPort: 2001\nagent:\n  threads: 3\n');
    const settings = loadSettings({
      cwd: folder,
      env: { MUSICAL_CHAIR_GATEWAY_PORT: '1002', MUSICAL_CHAIR_GATEWAY_DISPATCHER_PORT: '2002' },
      flags: { 'gateway.port': '1003' },
    });
    expect(settings.gateway.port).toBe(1003);
    expect(settings.gateway.dispatcherPort).toBe(2002);
    expect(settings.agent.threads).toBe(3);
    expect(settings.agent.storeMb).toBe(4_000);
  });

  it('are read from JSON as well, and from the file named', () => {
    const file = write('other.json', '{"cluster": "attic"}');
    expect(loadSettings({ cwd: folder, file }).cluster).toBe('attic');
    expect(loadSettings({ cwd: folder, env: { MUSICAL_CHAIR_CONFIG: file } }).cluster).toBe('attic');
  });

  it.each([
    ['a misspelt key in the file', 'gateway:\n  prot: 5', {}, /gateway\.prot .* is not a setting.*gateway\.port/],
    ['a misspelt section', 'gatway: {}', {}, /gatway .*is not a setting.*gateway\?/],
    [
      'a misspelt variable',
      '',
      { MUSICAL_CHAIR_GATEWAY_PROT: '5' },
      /MUSICAL_CHAIR_GATEWAY_PROT is not a setting.*MUSICAL_CHAIR_GATEWAY_PORT/,
    ],
    ['a port out of range', 'gateway: {port: 70000}', {}, /gateway\.port in .* is wrong; expected integer 0 to 65535/],
    [
      'a number that is none',
      '',
      { MUSICAL_CHAIR_AGENT_THREADS: 'many' },
      /MUSICAL_CHAIR_AGENT_THREADS=many is wrong; expected integer 0 to 256/,
    ],
    ['a broker that is no URL', 'broker: gateway', {}, /broker in .* is wrong; expected .*mqtts:\/\/gateway:8883/],
    ['a file that is no YAML', 'a: [', {}, /is not readable; expected YAML/],
    ['a file that is a list', '[1, 2]', {}, /has no settings/],
    ['a value that holds itself', 'agent: {}\ncluster: &a [*a]', {}, /line 2: this has no end; .*\*a within what it names/],
    ['a section that holds itself', 'gateway: &g\n  port:\n    - &p {x: *g, y: *p}', {}, /line 3: this has no end/],
    ['a value a hundred levels deep', `cluster: ${'['.repeat(100)}${']'.repeat(100)}`, {}, /values within values/],
    ['a value deeper than the stack', `cluster: ${'['.repeat(90_000)}`, {}, /values within values/],
    ['lists of lists of lists', `cluster:\n${'- '.repeat(40_000)}x`, {}, /values within values/],
    ['maps of maps of maps', `cluster: ${'{a: '.repeat(20_000)}`, {}, /values within values/],
    ['levels by indentation', Array.from({ length: 400 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), {}, /a .* is not a setting/],
    ['a file that is too large', `cluster: x\n#${'x'.repeat(100_000)}`, {}, /is no settings file/],
    ['the home directory of somebody else', 'credentials: ~bob/keys', {}, /credentials in .* is wrong; expected a path in one line/],
    ['a path of two lines', '', { MUSICAL_CHAIR_GATEWAY_DIRECTORY: '/srv/x\nUser=root' }, /is wrong; expected a path in one line/],
    ['a path with a zero in it', 'agent: {directory: "/srv/\\0"}', {}, /is wrong; expected a path in one line/],
  ])('refuse %s', (_, yaml, env, message) => {
    if (yaml !== '') write('musical-chair.yaml', yaml);
    expect(() => loadSettings({ cwd: folder, env })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) }),
    );
  });

  it('refuse JSON that is deeper than any settings', () => {
    for (const depth of [100, 40_000]) {
      const file = write('deep.json', `{"cluster":${'['.repeat(depth)}1${']'.repeat(depth)}}`);
      expect(() => loadSettings({ cwd: folder, file })).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    }
  });

  it('may name what stands elsewhere in the file', () => {
    write('musical-chair.yaml', 'cluster: &name attic\nagent:\n  name: *name\n');
    expect(loadSettings({ cwd: folder, env: {} }).agent.name).toBe('attic');
  });

  it('know the home directory in every path, wherever it was said', () => {
    write('musical-chair.yaml', 'credentials: ~/keys\ngateway: {directory: "~"}\nagent: {directory: ~/a, tokenFile: ~/t}\n');
    const { credentials, gateway, agent } = loadSettings({ cwd: folder, env: {} });
    expect([credentials, gateway.directory]).toEqual([path.join(homedir(), 'keys'), homedir()]);
    expect([agent.directory, agent.tokenFile]).toEqual([path.join(homedir(), 'a'), path.join(homedir(), 't')]);
    expect(loadSettings({ cwd: folder, env: {}, flags: { credentials: '~/other' } }).credentials).toBe(path.join(homedir(), 'other'));
    expect(loadSettings({ cwd: folder, env: { MUSICAL_CHAIR_CREDENTIALS: '~/e' } }).credentials).toBe(path.join(homedir(), 'e'));
    expect(loadSettings({ cwd: folder, env: {}, flags: { credentials: './~bob' } }).credentials).toBe('./~bob');
    expect(() => loadSettings({ cwd: folder, file: '~/nowhere/there.yaml', env: {} })).toThrow(path.join(homedir(), 'nowhere'));
  });

  it('refuse a file that was named and is not there', () => {
    expect(() => loadSettings({ cwd: folder, file: 'nowhere.yaml' })).toThrow(expect.objectContaining({ code: 'FILE_NOT_FOUND' }));
  });

  it('each have a description, a flag and a variable of their own', () => {
    const settings = listSettings();
    expect(settings.length).toBeGreaterThan(10);
    expect(new Set(settings.map((s) => s.env)).size).toBe(settings.length);
    for (const s of settings) expect(s.description).toMatch(/\.$/);
  });

  it('know the nearest word', () => {
    expect(nearest('threds', ['threads', 'name'])).toBe('threads');
  });
});
