/** `npm run chaos -- [--minutes 10] [--seed N] [--json]`: see README.md here. Ends with 1 when something that must hold did not. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ChairError } from '../../broker/errors.js';
import { untilStopped } from '../lifetime.js';
import { errorLine, exitStatus, wholeNumber } from '../output.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import { recordText } from './record.js';
import { runChaos } from './run.js';
import { type FaultKind, KINDS } from './schedule.js';
import { setStage } from './stage.js';

const OPTIONS = {
  minutes: { type: 'string', default: '10' },
  seed: { type: 'string' },
  agents: { type: 'string', default: '6' },
  rounds: { type: 'string' },
  'from-round': { type: 'string', default: '0' },
  kinds: { type: 'string' },
  plain: { type: 'boolean', default: false },
  log: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

const HELP = `npm run chaos -- [options]

Starts a testbed with two deployments under load and lets things go wrong: a random schedule of faults, the same for the same seed. After every event, and
at the end, it looks at what must always hold. Ends with 1 when something did not.

  --minutes N       no round of faults begins after so long (${OPTIONS.minutes.default})
  --seed N          of the schedule (a new one each time; it is printed)
  --agents N        agents at the beginning; two more may join (${OPTIONS.agents.default})
  --rounds N        at most so many rounds
  --from-round N    begin with this round of the schedule (0)
  --kinds LIST      only these kinds of faults: ${KINDS.join(', ')}
  --plain           plain processes even where namespaces and limits could be made: no faults of links, processors and disks
  --log             show what all processes write
  --json            one JSON object instead of text
`;

function read(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, strict: true }).values;
  } catch (error) {
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new ChairError('USAGE', message, { todo: 'See npm run chaos -- --help', cause: error });
  }
}

function readKinds(text: string | undefined): readonly FaultKind[] | undefined {
  if (text === undefined) return undefined;
  return text.split(',').map((name) => {
    const kind = KINDS.find((one) => one === name.trim());
    if (kind === undefined) throw new ChairError('USAGE', 'a kind of fault is wrong', { expected: KINDS.join(', '), came: `"${name}"` });
    return kind;
  });
}

function readMinutes(text: string): number {
  const minutes = Number(text);
  if (text.trim() !== '' && minutes > 0 && minutes <= 10_080) return minutes;
  throw new ChairError('USAGE', '--minutes is wrong', { expected: 'minutes above 0, at most a week', came: `"${text}"` });
}

/** Compiled, processes start faster and take less memory, as installed ones do. */
function compile(directory: string): string {
  const build = path.join(PACKAGE_ROOT, 'scripts', 'build.ts');
  const { status, stdout } = spawnSync(process.execPath, [...process.execArgv, build, '--out', directory], { encoding: 'utf8' });
  if (status !== 0) throw new ChairError('INTERNAL', `the checkout does not compile: ${stdout.slice(0, 500)}`);
  return path.join(directory, 'scripts', 'cli.js');
}

async function main(argv: readonly string[]): Promise<number> {
  const values = read(argv);
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1e6) : wholeNumber(values.seed, '--seed', 0, 2 ** 31);
  const forMs = 60_000 * readMinutes(values.minutes);
  const agents = wholeNumber(values.agents, '--agents', 3, 90);
  const kinds = readKinds(values.kinds);
  const rounds = values.rounds === undefined ? undefined : wholeNumber(values.rounds, '--rounds', 1, 1e6);
  const fromRound = wholeNumber(values['from-round'], '--from-round', 0, 1e6);
  const built = path.join(PACKAGE_ROOT, '.cache', `chaos-${process.pid}`);
  let stopping = false;
  void untilStopped(60_000).then(() => {
    stopping = true;
  });
  const startedMs = performance.now();
  const at = (digits: number): string => `${((performance.now() - startedMs) / 1000).toFixed(digits).padStart(6)} s`;
  const note = (line: string): void => console.error(`${at(0)}  ${line}`);
  note(`seed ${seed}: the cluster is being set up`);
  try {
    const stage = await setStage({
      agents,
      spares: 2,
      device: DEFAULT_DEVICE,
      cli: compile(built),
      ...(values.plain ? { isolated: false } : {}),
      ...(values.log ? { onLine: (child: string, line: string) => console.error(`${at(1)}      ${child}: ${line}`) } : {}),
    });
    try {
      const record = await runChaos(stage, {
        ...{ seed, forMs, fromRound, note, stopped: () => stopping },
        ...(rounds === undefined ? {} : { rounds }),
        ...(kinds === undefined ? {} : { kinds }),
      });
      console.log(values.json ? JSON.stringify(record) : recordText(record));
      return record.violations.length === 0 ? 0 : 1;
    } finally {
      await stage.stop();
    }
  } finally {
    rmSync(built, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(errorLine(error));
  process.exitCode = exitStatus(error);
}
