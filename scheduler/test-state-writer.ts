/**
 * For scheduler/killed.test.ts: a process that writes a gateway's state without a pause, to be killed. It says in lines of JSON what it found at its start, and from
 * then on what is on the disk: a number that grows, of each kind of file.
 */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readSealed, removeLeftovers } from '../broker/sealed-file.js';
import { LinkFile } from './links/file.js';
import { CorrectionFile } from './live/file.js';
import { Problems } from './problems.js';
import { ProfileCache } from './profiles/cache.js';
import { DeploymentFiles } from './state.js';
import { nextTerm } from './term.js';
import { deployment } from './test-deployment.js';

const [, , directory = ''] = process.argv;
const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
/** A file is larger than what one write puts on the disk at once. */
const BALLAST = 'x'.repeat(60_000);

const problems = new Problems();
const log = (): void => undefined;
mkdirSync(directory, { recursive: true });
await removeLeftovers(directory);
const files = new DeploymentFiles({ directory: join(directory, 'deployments'), problems });
const links = new LinkFile({ file: join(directory, 'links'), problems, log });
const corrections = new CorrectionFile({ file: join(directory, 'corrections'), problems, log });
const profiles = await ProfileCache.open({ directory: join(directory, 'profiles'), problems, log });
const device = { fingerprint: 'aaa', engine: 'e', engineVersion: '1' };
const need = {
  what: 'run',
  nodes: [0, 1],
  cut: 'whole',
  parts: 1,
  part: 0,
  macs: 1,
  weightBytes: 1,
  inBytes: 1,
  outBytes: 1,
  label: BALLAST,
  check: false,
} as const;
const key = { model: 'm', need, threads: 1 };

const saved = await files.load();
const [link] = await links.load();
const [correction] = await corrections.load();
const found = {
  term: Number((await readSealed(join(directory, 'term'))) ?? 0),
  deployment: Number(saved.find(({ request }) => request.name === 'grows')?.request.weight ?? 0),
  links: link?.bytesPerSecond ?? 0,
  corrections: Number(correction?.nonce.split(' ')[0] ?? 0),
  profiles: profiles.get(device, key)?.samplesMs[0] ?? 0,
};
const leftovers = ['', 'deployments', 'profiles'].flatMap((folder) =>
  readdirSync(join(directory, folder)).filter((name) => name.endsWith('.new')),
);
say({ found, problems: problems.all(), leftovers, there: saved.map(({ request }) => request.name).sort() });

const start = Math.max(...Object.values(found));
for (let i = start + 1; ; i++) {
  const one = deployment('grows');
  await Promise.all([
    nextTerm(directory, i - 1, log).then(() => say({ term: i })),
    files.save({ ...one, request: { ...one.request, weight: i, model: BALLAST } }).then(() => say({ deployment: i })),
    (async () => {
      links.changed(
        () => [{ from: 'a', to: BALLAST, lane: 'direct', bytesPerSecond: i, latencyMs: 1, spread: 0, source: 'measured', ageMs: 0 }],
        true,
      );
      await links.flush();
      say({ links: i });
    })(),
    (async () => {
      corrections.changed(() => [{ agent: 'a', nonce: `${i} ${BALLAST}`, bases: [] }], true);
      await corrections.flush();
      say({ corrections: i });
    })(),
    (async () => {
      profiles.set(device, key, 'slice', { agent: 'a', samplesMs: [i], loadMs: 1, loadPeakBytes: 1, runPeakBytes: 1, busy: false });
      await profiles.flush();
      say({ profiles: i });
    })(),
  ]);
  // One that comes and goes: after `gone` it must not come back.
  await files.save(deployment('comes'));
  say({ comes: i });
  await files.remove('comes');
  say({ gone: i });
}
