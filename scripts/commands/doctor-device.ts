/** `doctor` of an agent's machine, as a bundle brings it: what an agent can see by itself, without a person's certificate. */
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { type Finding, findingsText, note } from '../doctor/findings.js';
import { areaOf, lookHere } from '../doctor/here.js';
import { agentDirectory } from '../state-folder.js';

export const doctorOfDevice: CommandDefinition = {
  name: 'doctor',
  summary: 'Look for what is wrong on this machine and on its way to the gateway, and say what to do about it',
  description:
    'Engine, memory, disk, clock, certificate, multicast DNS, the port for joining, and whether the broker lets this agent in. As root: the state belongs to the service. Exit status 1 when something is bad.',
  arguments: [{ syntax: '[role]', description: 'agent: it is nothing else here' }],
  settings: ['cluster', 'broker', 'credentials', 'insecure', 'agent.name'],
  json: true,
  examples: [{ line: 'doctor', text: 'settings are those of the service, in /etc/musical-chair/agent.yaml' }],
  run: async (invocation) => {
    const { output } = invocation;
    const [said = 'agent'] = invocation.arguments;
    if (said !== 'agent')
      throw new ChairError('USAGE', 'this is the program of an agent', {
        expected: 'agent',
        came: said,
        todo: "The gateway's doctor is there.",
      });
    const findings = await examine(invocation);
    const isBad = findings.some(({ grade }) => grade === 'bad');
    output.report({ ok: !isBad, findings }, () => findingsText(findings, output.columns));
    if (isBad) process.exitCode = 1;
  },
};

async function examine({ settings, output }: Invocation): Promise<Finding[]> {
  const { findings, url, aheadMs = 0 } = await lookHere(settings, ['agent'], (line) => output.progress(line));
  const area = areaOf('agent', settings);
  output.progress('asking the broker');
  if (url === undefined) {
    const todo = 'Say where the gateway is (broker: mqtts://HOST:8883 in the settings), or see mdns.';
    return [...findings, note(area, 'broker', 'nobody knows where it is', todo)];
  }
  const { lookAtBroker } = await import('../doctor/broker.js');
  const directory = settings.credentials === '' ? path.join(agentDirectory(settings), 'credentials') : settings.credentials;
  return [...findings, ...(await lookAtBroker({ area, url, directory, nowMs: () => Date.now() - aheadMs }))];
}
