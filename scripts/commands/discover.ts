/** `discover`: which gateways answer on the local network. */
import type { CommandDefinition } from '../command.js';
import { optionText } from '../deploy-options.js';
import { wholeNumber } from '../output.js';
import { formatTable } from '../table.js';

export const discover: CommandDefinition = {
  name: 'discover',
  summary: 'List the gateways that answer on the local network (mDNS), of every cluster',
  options: [{ flags: '--seconds <count>', description: 'how long to look, 1 to 60', default: '2' }],
  json: true,
  examples: [{ line: 'discover', text: 'clusters, their brokers and versions' }],
  run: async ({ options, output }) => {
    const waitMs = 1_000 * wholeNumber(optionText(options, 'seconds', '2'), '--seconds', 1, 60);
    const { findGateways } = await import('../../broker/discovery/finder.js');
    const { gateways, interfaces } = await findGateways({ waitMs });
    const sorted = [...gateways].sort((a, b) => a.cluster.localeCompare(b.cluster) || a.name.localeCompare(b.name));
    output.report({ gateways: sorted, interfaces }, () => {
      if (sorted.length === 0) return `No gateway answered on ${interfaces.join(', ') || 'any interface: there is no network'}.`;
      const rows = sorted.map(({ cluster, url, name, softwareVersion }) => [cluster, url, name, softwareVersion]);
      return formatTable([{ title: 'cluster' }, { title: 'broker' }, { title: 'gateway' }, { title: 'version' }], rows, output.columns);
    });
  },
};
