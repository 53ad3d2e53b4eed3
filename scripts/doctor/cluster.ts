/** The cluster as the gateway knows it: agents, deployments, and the lane between each pair. Pure. */
import type { AgentStatus, LaneHealth, LinkStatus, StatusReport } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import { throttledNow } from '../../scheduler/dashboard/throttling.js';
import { mbps } from '../../scheduler/links/table.js';
import { durationText } from '../duration.js';
import { bytesText, msText } from '../table.js';
import { bad, type Finding, note, ok } from './findings.js';

const MB = 1e6;
const HOT_CELSIUS = 80;
const isGone = (state: string): boolean => state === 'lost' || state === 'stopped';

/** What is wrong with one agent, by what it said last; one `ok` when nothing is. */
export function judgeAgent(agent: AgentStatus, others: readonly AgentStatus[]): Finding[] {
  const area = `agent ${agent.agent}`;
  const { state, why, health, softwareVersion, memoryBytes } = agent;
  const because = why === '' ? '' : `: ${why}`;
  if (state === 'stopped') return [note(area, 'state', 'it was stopped in order', 'Start it when it is to serve again.')];
  if (state === 'lost') {
    const todo = 'On that machine: is it on, does the agent run (systemctl status musical-chair-agent), what does doctor say there?';
    return [bad(area, 'state', `lost${because}`, todo)];
  }
  const found: Finding[] = [];
  if (state === 'refused') found.push(bad(area, 'state', `refused${because}`, 'The reason says what has to be changed on that machine.'));
  else if (state === 'suspect')
    found.push(
      note(
        area,
        'state',
        `nothing was heard of it for a moment${because}`,
        'Weak Wi-Fi, or a machine without memory or power? Look again in a minute.',
      ),
    );
  else if (state === 'joining')
    found.push(
      note(
        area,
        'state',
        `joining${because}`,
        agent.heldMs > 0 ? 'It was lost too often: it is held back for a while.' : 'It should be ready in a few seconds.',
      ),
    );
  const versions = new Set(others.filter((other) => !isGone(other.state)).map((other) => other.softwareVersion));
  if (versions.size > 1)
    found.push(
      note(
        area,
        'version',
        `${softwareVersion}, others are of ${[...versions].filter((v) => v !== softwareVersion).join(', ')}`,
        'Bring all to one version.',
      ),
    );
  if (health === null) return [...found, note(area, 'health', 'it has said nothing of its health yet', 'Look again in a few seconds.')];
  const { memoryFreeBytes: free, temperature, throttled, damaged } = health;
  if (free > 0 && free < 100 * MB)
    found.push(bad(area, 'memory', `${bytesText(free)} free`, 'Stop other programs there, or let it offer less (agent.memoryMb).'));
  if (temperature >= HOT_CELSIUS)
    found.push(note(area, 'heat', `${Math.round(temperature)} C: it slows itself down`, 'A heat sink, a fan, or air around it.'));
  const powers = throttledNow(throttled);
  if (powers.length > 0)
    found.push(
      note(
        area,
        'power',
        `its firmware says: ${powers.join(', ')}`,
        'A power supply of the size that the board wants, a short cable, a heat sink.',
      ),
    );
  if (damaged > 0)
    found.push(bad(area, 'disk', `${damaged} files on its disk were damaged`, 'Memory cards wear out: replace it before it forgets more.'));
  if (found.length > 0) return found;
  const heat = temperature > 0 ? `, ${Math.round(temperature)} C` : '';
  // What the machine has is no good to an agent that may have less of it.
  const usable = memoryBytes > 0 ? Math.min(free, memoryBytes) : free;
  return [ok(area, 'state', `${state}, ${softwareVersion}, ${bytesText(usable)} of memory free${heat}`)];
}

/** What the gateway itself complains of, and deployments that do not serve. */
export function judgeGateway({ cluster, problems, deployments, agents, uptimeMs }: StatusReport): Finding[] {
  const area = `cluster ${cluster}`;
  const up = `up ${durationText(uptimeMs)}`;
  const alive = agents.filter(({ state }) => !isGone(state)).length;
  return [
    ...problems.map((text) => bad(area, 'problem', text, 'The message says what could not be read or written.')),
    ...deployments
      .filter(({ state }) => state !== 'serving')
      .map(({ name, state, why }) =>
        bad(
          area,
          'deployment',
          `${name} is ${state}${why === '' ? '' : `: ${why}`}`,
          'status says more; deploy it again when the reason is gone.',
        ),
      ),
    ...(alive === 0
      ? [note(area, 'agents', 'there is no agent', 'The gateway prints at its start how an agent joins.')]
      : [ok(area, 'agents', `${alive} here, ${deployments.length} deployed, ${up}`)]),
  ];
}

const pairText = (a: string, b: string): string => `${a} and ${b}`;

/**
 * The lane between each pair of `names` (and the dispatcher): as it was measured, or as traffic shows it. `asked`: pairs were measured just now, so one that is not
 * known could not be.
 */
export function judgeLanes({ agents, links }: Pick<StatusReport, 'agents' | 'links'>, names: readonly string[], asked: boolean): Finding[] {
  const ends = [DISPATCHER, ...names];
  const rows = new Map(links.map((link) => [`${link.from} ${link.to}`, link]));
  const lanes = new Map(
    agents.flatMap(({ agent, health }) => (health?.lanes ?? []).map((lane) => [`${agent} ${lane.peer}`, lane] as const)),
  );
  return ends.flatMap((a, i) => ends.slice(i + 1).flatMap((b) => judgeLane(a, b, both(rows, a, b), both(lanes, a, b), asked)));
}

function both<T>(map: ReadonlyMap<string, T>, a: string, b: string): T[] {
  return [map.get(`${a} ${b}`), map.get(`${b} ${a}`)].filter((value): value is NonNullable<typeof value> => value !== undefined);
}

/** There and back, as seen from `a`. */
function speedText(a: string, links: readonly LinkStatus[]): string {
  const said = links.map(({ from, bytesPerSecond }) => `${mbps(bytesPerSecond)} ${from === a ? 'there' : 'back'}`);
  const latencyMs = Math.max(0, ...links.map((link) => link.latencyMs));
  return said.length === 0 ? '' : `${said.join(', ')}; ${msText(latencyMs)}`;
}

function judgeLane(a: string, b: string, links: readonly LinkStatus[], lanes: readonly LaneHealth[], asked: boolean): Finding[] {
  const area = 'lanes';
  const speed = speedText(a, links);
  const down = lanes.find(({ lane }) => lane === 'down');
  if (down !== undefined) {
    return [
      bad(
        area,
        pairText(a, b),
        `no way between them: ${down.why}`,
        'Neither a connection of their own nor the broker: is one of them cut off?',
      ),
    ];
  }
  const relayed = lanes.find(({ lane }) => lane === 'relay');
  if (relayed !== undefined || links.some(({ lane }) => lane === 'relay')) {
    const why = relayed === undefined || relayed.why === '' ? '' : `: ${relayed.why}`;
    const todo = `Let TCP through between them: give ${b} a fixed port (agent.lanePort) and open it. It works so, but each frame goes over the gateway.`;
    return [note(area, pairText(a, b), `through the broker${why}${speed === '' ? '' : ` (${speed})`}`, todo)];
  }
  const problem = links.find((link) => link.problem !== '')?.problem;
  if (problem !== undefined) return [note(area, pairText(a, b), problem, 'Measure again when nothing else runs: links --measure.')];
  if (links.length > 0 || lanes.length > 0) return [ok(area, pairText(a, b), speed === '' ? 'direct' : speed)];
  if (!asked) return [];
  return [note(area, pairText(a, b), 'not measured', 'Frames run there, or one of them did not answer: the events of status say which.')];
}
