import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { COMMANDS } from './commands/index.js';
import { listSettings, settingsSchema } from './config.js';
import { changedValues, checkText, configText, settingValue } from './config-text.js';
import { checkSettings, loadSettings } from './settings.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-config-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const none = { env: {}, systemFiles: [] };
function write(text: string, name = 'musical-chair.yaml'): string {
  const file = path.join(folder, name);
  writeFileSync(file, text);
  return file;
}

describe('the settings file that is written', () => {
  it('names every key with its flag, its variable and what it means, and changes nothing as it is', () => {
    const text = configText();
    const file = write(text);
    expect(loadSettings({ ...none, file })).toEqual(loadSettings({ ...none, cwd: folder, file: write('{}', 'empty.json') }));
    const flat = text.replaceAll(/\s*\n\s*# /g, ' ');
    for (const setting of listSettings()) {
      expect(flat).toContain(`--${setting.flag}, ${setting.env}`);
      expect(flat).toContain(setting.description);
    }
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(140);
  });

  it('is right with every key taken out of its comment, and says the defaults', () => {
    const text = configText().replaceAll(/^(\s*)#([A-Za-z]+:)/gm, '$1$2');
    const settings = loadSettings({ ...none, file: write(text) });
    for (const { key, shown, defaultValue } of listSettings()) {
      if (shown === undefined) expect(settingValue(settings, key), key).toEqual(defaultValue);
    }
    expect([...checkSettings({ ...none, file: path.join(folder, 'musical-chair.yaml') }).origins]).toHaveLength(listSettings().length);
  });

  it('carries values over that are not the default, whatever YAML could take them for', () => {
    const settings = settingsSchema.parse({
      cluster: 'on',
      broker: 'mqtt://user:p#w@host:1883',
      gateway: { port: 1999, directory: '/srv/a b: "c"', hidden: true },
    });
    const values = changedValues(settings, 'gateway');
    expect(Object.keys(values).sort()).toEqual(['broker', 'cluster', 'gateway.directory', 'gateway.hidden', 'gateway.port']);
    expect(loadSettings({ ...none, file: write(configText(values, 'gateway')) })).toEqual(settings);
  });

  it('has only the section that is asked for', () => {
    expect(configText({}, 'agent')).not.toMatch(/^gateway:/m);
    expect(configText({}, 'gateway')).not.toMatch(/^agent:/m);
  });

  it('has no key that no command takes as a flag', () => {
    const taken = new Set(COMMANDS.flatMap((command) => command.settings ?? []));
    expect(listSettings().filter(({ key }) => !taken.has(key))).toEqual([]);
  });
});

describe('what is wrong with settings', () => {
  it('is said whole, each with its line', () => {
    const file = write(`# a comment
cluster: "bad name"
gateway:
  port: "1883"
  # another
  prot: 5
  hidden: maybe
agent:
  threads: 300
  name:
colour: red
`);
    const checked = checkSettings({ ...none, file, env: { MUSICAL_CHAIR_AGENT_HEALTH_MS: 'often', MUSICAL_CHAIR_AGENT_THREAD: '1' } });
    expect(checked.settings).toBeUndefined();
    expect(checked.findings.map(({ key, line }) => [key, line])).toEqual([
      ['MUSICAL_CHAIR_AGENT_THREAD', undefined],
      ['gateway.prot', 6],
      ['colour', 11],
      ['cluster', 2],
      ['gateway.port', 4],
      ['gateway.hidden', 7],
      ['agent.name', 10],
      ['agent.threads', 9],
      ['agent.healthMs', undefined],
    ]);
    const text = checked.findings.map(({ error }) => error.message).join('\n');
    expect(text).toContain(`gateway.port in ${file}, line 4, is wrong; expected integer 0 to 65535; got "1883"`);
    expect(text).toContain('gateway.hidden');
    expect(text).toContain('expected true or false; got "maybe"');
    expect(text).toContain('Did you mean gateway.port?');
    expect(text).toContain('MUSICAL_CHAIR_AGENT_HEALTH_MS=often is wrong; expected integer 50 to 60000');
    expect(checkText(checked)).toMatch(/^9 things are wrong:/);
  });

  it.each([
    ['a key that stands there twice', 'cluster: a\ngateway:\n  port: 1\n  port: 2\n', /line 4: this key stands there twice/],
    ['what is no YAML', 'cluster: a\n  b: [\n', /is not readable; expected YAML; got line 1/],
    [
      'two listeners on one port',
      'gateway:\n  port: 1883\n  dispatcherPort: 1883\n',
      /gateway\.dispatcherPort in .*, line 3, is wrong; .*gateway\.port, too/,
    ],
    ['a section that is a word', 'gateway: yes please\n', /gateway in .*, line 1, is wrong/],
    ['an alias that is not there', 'cluster: *nobody\n', /is not readable|is wrong/],
    [
      'aliases that multiply',
      `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [${'*a,'.repeat(9)}]\nc: &c [${'*b,'.repeat(9)}]\nd: [${'*c,'.repeat(9)}]\n`,
      /is not readable/,
    ],
  ])('finds %s', (_, yaml, message) => {
    const { findings } = checkSettings({ ...none, file: write(yaml) });
    expect(findings[0]?.error.code).toBe('CONFIG_INVALID');
    expect(findings[0]?.error.message).toMatch(message);
  });

  it('has lines in JSON, too', () => {
    const file = write('{\n  "gateway": {\n\t"port": 70000\n  }\n}\n', 'x.json');
    expect(checkSettings({ ...none, file }).findings.map(({ key, line }) => [key, line])).toEqual([['gateway.port', 3]]);
    expect(checkSettings({ ...none, file: write('{"cluster": "a", "cluster": "b"}', 'y.json') }).findings[0]?.error.message).toContain(
      'twice',
    );
  });

  it('is nothing in a file whose sections hold only comments', () => {
    expect(checkSettings({ ...none, file: write('gateway:\n  # port: 1\nagent:\n') }).settings).toBeDefined();
  });

  it('is refused for a file that is far too large', () => {
    const { findings } = checkSettings({ ...none, file: write(`# ${'x'.repeat(1_000_001)}`) });
    expect(findings[0]?.error.message).toContain('is no settings file');
  });
});

describe('settings that are right', () => {
  it('say where each value came from', () => {
    const file = write('cluster: a\ngateway:\n  port: 5\n  dispatcherPort: 6\n');
    const checked = checkSettings({ ...none, file, env: { MUSICAL_CHAIR_GATEWAY_PORT: '7' }, flags: { 'gateway.dispatcherPort': '8' } });
    expect(Object.fromEntries(checked.origins)).toEqual({
      cluster: `${file}, line 1`,
      'gateway.port': 'MUSICAL_CHAIR_GATEWAY_PORT',
      'gateway.dispatcherPort': '--dispatcher-port',
    });
    expect(checkText(checked, 120)).toContain('MUSICAL_CHAIR_GATEWAY_PORT');
    expect(checked.settings?.gateway).toMatchObject({ port: 7, dispatcherPort: 8 });
  });

  it('of the whole machine are read when there are none in the working directory', () => {
    const machine = write('cluster: machine\n', 'system.yaml');
    const cwd = path.join(folder, 'nowhere');
    expect(loadSettings({ env: {}, cwd, systemFiles: [path.join(folder, 'missing'), machine] }).cluster).toBe('machine');
    write('cluster: here\n');
    expect(loadSettings({ env: {}, cwd: folder, systemFiles: [machine] }).cluster).toBe('here');
  });

  it('have the home directory put in', () => {
    const { gateway } = loadSettings({ ...none, file: write('gateway:\n  directory: ~/state\n') });
    expect(path.isAbsolute(gateway.directory)).toBe(true);
    expect(gateway.directory).toMatch(/\/state$/);
  });
});
