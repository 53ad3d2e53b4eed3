/** Where processes with these settings keep their state. */
import path from 'node:path';
import { type Settings, stateDirectory } from './config.js';

/** The gateway's state folder, absolute. */
export function gatewayDirectory({ cluster, gateway }: Pick<Settings, 'cluster' | 'gateway'>): string {
  return path.resolve(gateway.directory === '' ? stateDirectory(cluster, 'gateway') : gateway.directory);
}

/** The agent's store, absolute. */
export function agentDirectory({ cluster, agent }: Pick<Settings, 'cluster' | 'agent'>, name = agent.name): string {
  return path.resolve(agent.directory === '' ? stateDirectory(cluster, `agent-${name}`) : agent.directory);
}
