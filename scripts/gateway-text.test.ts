import { describe, expect, it } from 'vitest';
import { type GatewayFacts, gatewayText, joinLines } from './gateway-text.js';

const facts: GatewayFacts = {
  cluster: 'home',
  brokerUrl: 'mqtt://192.168.1.10:1883',
  external: false,
  dispatcherAddresses: ['192.168.1.10'],
  dispatcherPort: 1884,
  stateDirectory: '/var/lib/x',
  settingsFile: undefined,
  announced: true,
  trust: undefined,
  hereFlags: '',
  startedInMs: 712,
  program: 'musical-chair',
};

describe('what a gateway prints when it is ready', () => {
  it('says where everything is, and the command that lets an agent join', () => {
    const text = gatewayText(facts);
    for (const word of ['0.71 s', 'mqtt://192.168.1.10:1883', '192.168.1.10:1884', '/var/lib/x', 'no file', "cluster 'home'", 'INSECURE']) {
      expect(text).toContain(word);
    }
    expect(text).toContain('\n  musical-chair agent --name NAME --cluster home --insecure\n');
    expect(text).toContain('\n  musical-chair agent --name NAME --cluster home --broker mqtt://192.168.1.10:1883 --insecure');
    expect(text).toMatch(/traffic +plain, unprotected/);
  });

  it('says no word of multicast when the gateway is hidden', () => {
    expect(joinLines({ ...facts, announced: false, cluster: 'default' })).toEqual([
      'An agent joins with, on its machine:',
      '  musical-chair agent --name NAME --broker mqtt://192.168.1.10:1883 --insecure',
    ]);
  });

  it('says how a token is had where agents need one', () => {
    const trust = { host: '192.168.1.10', port: 8884, fingerprint: 'ab'.repeat(32) };
    const lines = joinLines({ ...facts, trust, hereFlags: '--config /etc/x.yaml' });
    expect(lines).toContain('  musical-chair token create --name NAME --cluster home --config /etc/x.yaml');
    expect(lines).toContain('  musical-chair agent --name NAME --cluster home --gateway 192.168.1.10:8884 --token TOKEN');
    const text = gatewayText({ ...facts, trust });
    expect(text).not.toMatch(/INSECURE|--insecure|plain/);
    expect(text).toContain('192.168.1.10:8884, CA abababababababab');
  });
});
