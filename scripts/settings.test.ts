import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
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
  ])('refuse %s', (_, yaml, env, message) => {
    if (yaml !== '') write('musical-chair.yaml', yaml);
    expect(() => loadSettings({ cwd: folder, env })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) }),
    );
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
