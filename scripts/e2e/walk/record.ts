/** The page docs/walk.md: one whole run, as it was. */
import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { PACKAGE_ROOT } from '../../package-root.js';
import { bytesText, countText } from '../../table.js';
import { clockText, pageText, type Transcript } from './transcript.js';
import type { Walk } from './walk.js';

/** As the machine was before anything ran. */
const LOAD_BEFORE = loadavg()[0] ?? 0;

export function recordOf(walk: Walk, { steps }: Transcript, limitMs: number): string {
  const { agents, spec } = walk.options;
  const at = (ms: number | undefined): string => (ms === undefined ? '-' : clockText(ms));
  const starts = walk.starts.map(({ saidSeconds }) => saidSeconds.toFixed(2)).join(', ');
  return pageText({
    intro: [
      '# From a checkout to a first inference, and a device that dies',
      '',
      'One whole run of `npm run walk` (Linux, root, tmux), as it printed it. It types what README and docs say, on small devices that one machine was divided into: each has a network namespace',
      'with an address and a shaped link, a share of a core, a memory limit, and its own `/etc`, `/opt` and `/var/lib`, in which nothing of ours is installed. The gateway has a namespace and a home folder of',
      'its own, and finds its packages where npm does. It ends with 1 when a command fails, when the result is not that of one machine, when a frame is lost, or when it takes too long.',
    ],
    result: [
      `**First inference ${at(walk.firstInferenceMs)} after the first command; the device seen replaced at ${at(walk.replacedMs)}; ${clockText(limitMs)} were allowed.**`,
      `Load while the device died: ${walk.load ?? '-'}. The gateway was ready ${starts} s after its start (three starts; the first one makes the keys).`,
    ],
    conditions: [
      'Minutes and seconds since the first command.',
      '',
      `Conditions: ${agents} devices of ${spec.cpu} cores, ${bytesText(spec.memoryBytes)} and ${countText(spec.rateBits)}bit/s each, on ${availableParallelism()} cores of ${(cpus()[0]?.model ?? 'unknown').trim()}; load`,
      `${LOAD_BEFORE.toFixed(2)} before; Node ${process.version}; commit ${commit()}. No systemd runs on the devices: the command lines of the installed unit are run as its user, with its environment, and again`,
      'whenever they end. What would have been copied with scp was copied on the disk. Packages had been installed (`npm install`), and npm had them in its cache. A Raspberry Pi was not tried.',
    ],
    steps,
  });
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: PACKAGE_ROOT, encoding: 'utf8' }).trim();
  } catch {
    return 'unknown';
  }
}
