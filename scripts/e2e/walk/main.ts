/**
 * `npm run walk`: from a checkout to a first inference, as the documents say it, and an agent that dies under load: see README.md of `scripts/` and docs/walk.md.
 * Ends with 1 when a step fails, or when it takes longer than `--minutes`.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ChairError } from '../../../broker/errors.js';
import { untilStopped } from '../../lifetime.js';
import { errorLine, exitStatus, wholeNumber } from '../../output.js';
import { parseMemory, parseRate } from '../../testbed/devices.js';
import { hasTmux } from '../tmux.js';
import { recordOf } from './record.js';
import { clockText, Transcript } from './transcript.js';
import { Walk } from './walk.js';

const OPTIONS = {
  agents: { type: 'string', default: '6' },
  cpu: { type: 'string', default: '0.18' },
  memory: { type: 'string', default: '1g' },
  rate: { type: 'string', default: '1gbit' },
  minutes: { type: 'string', default: '15' },
  prefix: { type: 'string' },
  bundle: { type: 'string' },
  out: { type: 'string', default: 'out/walk' },
  record: { type: 'string' },
  help: { type: 'boolean', default: false },
} as const;

const HELP = `npm run walk -- [options]

Does what README and docs say, on small devices that this machine is divided into (Linux, root, tmux): packs the program and installs it from its tarball,
starts a gateway with certificates, makes a bundle, installs it on each device with its own install.sh, lets the devices join with tokens over TLS, deploys
a model, sends a picture through it, kills a device under load, and looks at it all on the dashboard. Prints what is typed, what comes, and how long it takes.
Ends with 1 when something fails or takes too long. Leaves dist/ and the pictures of the screens, nothing else.

  --agents COUNT   devices, 3 to 9 (${OPTIONS.agents.default})
  --cpu CORES      share of a core of a device (${OPTIONS.cpu.default})
  --memory SIZE    memory of a device (${OPTIONS.memory.default})
  --rate RATE      link of a device, each direction (${OPTIONS.rate.default})
  --minutes N      from the first command to the agent replaced (${OPTIONS.minutes.default})
  --prefix FOLDER  the program is there, as npm has installed it before: the first step is left out
  --bundle FILE    for the devices, made before with mc bundle: that step is left out
  --out FOLDER     where the screens are written (${OPTIONS.out.default})
  --record FILE    write all of it as a page, too: docs/walk.md
`;

function read(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, strict: true }).values;
  } catch (error) {
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new ChairError('USAGE', message, { todo: 'See npm run walk -- --help', cause: error });
  }
}

function positive(text: string, what: string, most: number): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value <= most) return value;
  throw new ChairError('USAGE', `${what} is wrong`, { expected: `above 0, at most ${most}`, came: `"${text}"` });
}

const fileOf = (text: string | undefined): string | undefined => (text === undefined ? undefined : path.resolve(text));

async function main(argv: readonly string[]): Promise<number> {
  const values = read(argv);
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (!hasTmux()) throw new ChairError('USAGE', 'the dashboard is looked at in tmux, which is not installed', { todo: 'apt install tmux' });
  const limitMs = 60_000 * positive(values.minutes, '--minutes', 1_000);
  const spec = {
    cpu: positive(values.cpu, '--cpu', 64),
    memoryBytes: parseMemory(values.memory),
    rateBits: parseRate(values.rate),
  };
  const agents = wholeNumber(values.agents, '--agents', 3, 9);
  const startedMs = performance.now();
  const transcript = new Transcript(
    (line) => console.log(line),
    () => performance.now() - startedMs,
  );
  const walk = await Walk.begin({ agents, spec, transcript, prefix: fileOf(values.prefix), bundle: fileOf(values.bundle) });
  let failed = false;
  try {
    const interrupted = untilStopped(60_000).then((signal) => {
      throw new ChairError('STOPPED', `ended by ${signal}`);
    });
    await Promise.race([walk.go(), interrupted]);
  } catch (error) {
    failed = true;
    console.error(errorLine(error));
  } finally {
    await walk.stop();
  }
  mkdirSync(values.out, { recursive: true });
  for (const [i, { title, text }] of transcript.steps.flatMap(({ screens }) => screens).entries())
    writeFileSync(
      path.join(values.out, `${String(i + 1).padStart(2, '0')}-${title.replaceAll(/[^A-Za-z0-9]+/g, '-').toLowerCase()}.txt`),
      `${text}\n`,
    );
  const { firstInferenceMs, replacedMs } = walk;
  const inTime = replacedMs !== undefined && replacedMs <= limitMs;
  if (firstInferenceMs !== undefined) console.log(`\nfirst inference   ${clockText(firstInferenceMs)} after the first command`);
  if (replacedMs !== undefined)
    console.log(
      `agent replaced    ${clockText(replacedMs)} after the first command; ${clockText(limitMs)} are allowed${inTime ? '' : ': TOO LATE'}`,
    );
  for (const { title, fromMs, ms } of transcript.steps)
    console.log(
      `  ${clockText(fromMs).padStart(5)}  ${ms === undefined ? ' FAILED' : `${(ms / 1000).toFixed(1).padStart(6)} s`}  ${title}`,
    );
  if (!failed && values.record !== undefined) writeFileSync(values.record, recordOf(walk, transcript, limitMs));
  return failed || !inTime ? 1 : 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(errorLine(error));
  process.exitCode = exitStatus(error);
}
