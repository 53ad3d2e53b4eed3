/** `update`: another program for running agents, one after another. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, isChairError, toChairError } from '../../broker/errors.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { Bundle } from '../bundle/read.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { withClient } from '../connection.js';
import { optionList, optionText } from '../deploy-options.js';
import { errorLine } from '../output.js';
import { printable } from '../printable.js';
import { bytesText } from '../table.js';

interface Chosen extends Bundle {
  readonly file: string;
}

interface Row {
  readonly agent: string;
  readonly before: string;
  readonly result: 'updated' | 'has it already' | 'failed' | 'not tried';
  readonly code: string;
  readonly message: string;
}

export const update: CommandDefinition = {
  name: 'update',
  summary: 'Update running agents to a bundle, one at a time; one that does not come back well goes back by itself',
  description:
    "Each agent fetches the bundle over MQTT, checks the gateway's signature, hands its seats over, starts the new program and is looked at. What fails runs its former program again, and the agents after it are left alone. For agents that were installed from a bundle and have joined with a token.",
  options: [
    { flags: '--bundle <file>', description: 'made by bundle; once for each kind of processor', repeatable: true },
    {
      flags: '--agents <list>',
      description: 'only these, in this order, joined with commas; default: all that were installed from a bundle',
    },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'update --bundle musical-chair-0.2.0-linux-arm64.tgz', text: 'every agent, one after another' },
    { line: 'update --bundle new.tgz --agents pi-3', text: 'one of them first' },
  ],
  run: async (invocation) => {
    const files = optionList(invocation.options, 'bundle');
    if (files.length === 0)
      throw new ChairError('USAGE', 'there is nothing to update to', { expected: '--bundle with a file', came: 'none' });
    const bundles = await readAll(files);
    const rows = await withClient(invocation.settings, (client) => updateAll(client, bundles, invocation));
    invocation.output.report(
      rows,
      () => rows.map((row) => printable(rowText(row))).join('\n') || 'No agent here was installed from a bundle.',
    );
    const failed = rows.find(({ result }) => result === 'failed');
    if (failed !== undefined)
      throw new ChairError('UPDATE_FAILED', `agent ${failed.agent} was not updated: ${failed.code}`, { todo: 'See above.' });
  },
};

async function readAll(files: readonly string[]): Promise<Chosen[]> {
  const { readBundle } = await import('../bundle/read.js');
  const bundles: Chosen[] = [];
  for (const file of files) {
    const bundle = { ...(await readBundle(file)), file };
    const other = bundles.find(({ manifest }) => manifest.arch === bundle.manifest.arch);
    if (other !== undefined) {
      throw new ChairError('USAGE', 'two bundles are for the same processor', { expected: 'one each', came: `${other.file} and ${file}` });
    }
    bundles.push(bundle);
  }
  return bundles;
}

async function updateAll(client: ChairClient, bundles: readonly Chosen[], { options, output }: Invocation): Promise<Row[]> {
  const agents = await chosen(client, optionText(options, 'agents'), bundles);
  if (agents.length > 0) await send(client, bundles, output);
  const rows: Row[] = [];
  for (const [i, { agent, version }] of agents.entries()) {
    const row = { agent, before: version, code: '', message: '' };
    if (rows.some(({ result }) => result === 'failed')) {
      rows.push({ ...row, result: 'not tried' });
      continue;
    }
    if (bundles.some(({ name }) => name === version)) {
      rows.push({ ...row, result: 'has it already' });
      continue;
    }
    output.progress(`${agent} (${i + 1} of ${agents.length}): fetching, handing over, installing, starting ...`);
    try {
      await watched(client, agent, updateOne(client, agent, bundles), (state) =>
        output.progress(`${agent} (${i + 1} of ${agents.length}): ${state}`),
      );
      output.note(`${agent}: updated`);
      rows.push({ ...row, result: 'updated' });
    } catch (error) {
      output.note(`${agent}: ${errorLine(error)}`);
      const { code, message } = toChairError(error);
      rows.push({ ...row, result: 'failed', code, message });
    }
  }
  return rows;
}

const LOOK_MS = 1_000;

/** What the agent does meanwhile; and a gateway that is started again knows nothing of an update that was under way. */
async function watched(client: ChairClient, agent: string, work: Promise<void>, show: (state: string) => void): Promise<void> {
  const done = new AbortController();
  const look = async (): Promise<void> => {
    let term: number | undefined;
    while (!done.signal.aborted) {
      // While the gateway is away there is nothing to see; the update itself says when that is the end of it.
      const status = await client.status().catch(() => undefined);
      term ??= status?.term;
      if (status !== undefined && status.term !== term) {
        throw new ChairError('UPDATE_FAILED', `the gateway was started again while agent ${agent} was updated`, {
          todo: 'What it had not confirmed goes back by itself: see `status` in three minutes, and update again.',
        });
      }
      const row = status?.agents.find((found) => found.agent === agent);
      if (row !== undefined && !done.signal.aborted) show(`${row.state}, ${row.softwareVersion}`);
      await delay(LOOK_MS, undefined, { signal: done.signal }).catch(() => undefined);
    }
  };
  const looking = look();
  // The loser's end is of no interest.
  work.catch(() => undefined);
  looking.catch(() => undefined);
  try {
    await Promise.race([work, looking.then(() => work)]);
  } finally {
    done.abort();
  }
}

/** The gateway knows what each agent's processor is. */
async function updateOne(client: ChairClient, agent: string, bundles: readonly Chosen[]): Promise<void> {
  let wrong: unknown;
  for (const { name, sha256, sizeBytes, manifest } of bundles) {
    try {
      await client.update({ agent, name, arch: manifest.arch, sha256, sizeBytes });
      return;
    } catch (error) {
      if (!isChairError(error, 'BUNDLE_WRONG_ARCH')) throw error;
      wrong = error;
    }
  }
  throw wrong;
}

async function chosen(client: ChairClient, list: string, bundles: readonly Chosen[]): Promise<{ agent: string; version: string }[]> {
  const { BUNDLE_NAME } = await import('../bundle/manifest.js');
  const { agents } = await client.status();
  const here = agents.filter(({ state }) => state !== 'lost' && state !== 'stopped' && state !== 'refused');
  const known = here.map(({ agent, softwareVersion: version }) => ({ agent, version }));
  if (list === '') return known.filter(({ version }) => BUNDLE_NAME.test(version) || bundles.some(({ name }) => name === version));
  return list.split(',').map((name) => {
    const found = known.find(({ agent }) => agent === name);
    if (found !== undefined) return found;
    throw new ChairError('AGENT_UNKNOWN', `no agent called ${name} is here`, {
      todo: `There are: ${known.map(({ agent }) => agent).join(', ') || 'none'}.`,
    });
  });
}

async function send(client: ChairClient, bundles: readonly Chosen[], output: Invocation['output']): Promise<void> {
  for (const { file, sha256, sizeBytes } of bundles) {
    const onProgress = (sent: number, total: number): void =>
      output.progress(`sending ${file} to the gateway: ${Math.floor((100 * sent) / Math.max(1, total))} % of ${bytesText(total)}`);
    await client.uploadBundle({ path: file, sha256, sizeBytes }, onProgress);
  }
}

function rowText({ agent, before, result, code, message }: Row): string {
  return `${agent}: ${result}${result === 'updated' ? `, from ${before}` : ''}${code === '' ? '' : ` (${code}: ${message})`}`;
}
