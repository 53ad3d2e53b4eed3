/**
 * docs/reproductions.md, made by simulation: published speeds beside what the same mappings, the published algorithm and `auto` reach on simulated devices.
 * `npm run reproduce` writes it; a test refuses a checkout in which it says something else.
 */
import { realpathSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PlanRefusal } from '../scheduler/planners/problem.js';
import { type LaterRow, type Reached, type ReproducedRow, reproduce } from '../scheduler/simulate/reproductions.js';
import { PACKAGE_ROOT } from './package-root.js';

export const REPRODUCTIONS = path.join(PACKAGE_ROOT, 'docs', 'reproductions.md');

type Cell = Reached | PlanRefusal | undefined;

function rate(cell: Cell): string {
  if (cell === undefined) return '-';
  return 'refused' in cell ? 'does not fit' : cell.fps.toFixed(2);
}

function ratio(cell: Cell, reported: number): string {
  return cell === undefined || 'refused' in cell ? '-' : `${(cell.fps / reported).toFixed(2)}`;
}

function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  return [titles, titles.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
}

function firstTable(rows: readonly ReproducedRow[]): string {
  return table(
    ['network', 'devices', 'reported', 'published mapping', 'of reported', 'one radio channel', '`musical-chair-2018`', '`auto`'],
    rows.map((row) => [
      ...[row.network, String(row.devices), row.reported.toFixed(2), rate(row.published), ratio(row.published, row.reported)],
      ...[rate(row.radio), rate(row.algorithm), rate(row.auto)],
    ]),
  );
}

function laterTable(rows: readonly LaterRow[]): string {
  return table(
    [
      'network',
      'devices',
      'pipeline: reported',
      '`pipeline`',
      'earlier method: reported',
      '`musical-chair-2018`',
      'new method: reported',
      '`auto`',
    ],
    rows.map(({ network, devices, reported: [pipeline = 0, earlier = 0, later = 0], ...row }) => [
      ...[network, String(devices), pipeline.toFixed(2), rate(row.pipeline), earlier.toFixed(2), rate(row.algorithm)],
      ...[later.toFixed(2), rate(row.auto)],
    ]),
  );
}

function plans(rows: readonly (ReproducedRow | LaterRow)[]): string {
  const said = (cell: Cell): string =>
    cell === undefined ? '-' : 'refused' in cell ? cell.reason.replace(/^[a-z0-9-]+: /, '') : `${cell.plan} (${cell.limit})`;
  return table(
    ['network', 'devices', '`musical-chair-2018`', '`auto`'],
    rows.map((row) => [row.network, String(row.devices), said(row.algorithm), said(row.auto)]),
  );
}

export function reproductionsDocument({ first, later }: ReturnType<typeof reproduce>): string {
  return `# Reproductions

<!-- Made from scheduler/simulate/reproductions.ts by \`npm run reproduce\`. -->

What the papers on Musical Chair report of clusters of Raspberry Pi 3, and what the same devices reach in our simulation (\`mc simulate\`; scheduler/simulate/). The
devices are simulated, nothing here was measured on a Raspberry Pi by this project. Nothing is fitted to the reported speeds: run times are those that the authors published
of single devices, links are what they published of theirs, and where the result differs from the report, the difference is explained or left standing.

    npm run reproduce

## Inferences per second

Hadidi et al. 2018 (arXiv 1802.02138, ReQuEST'18, RA-L 2018). Devices are counted as there, with the one that records the input; that one is the gateway here. *Published
mapping* is who computes what as they publish it, *of reported* its simulated rate over the reported one. *One radio channel*: the same where all messages share one medium. The last two
columns are the plans of our planners for the same devices, simulated the same way: the published algorithm does not always give the published mapping (it packs all convolutions of VGG16 together, and sees
no reason to divide AlexNet), and uses what it is given.

${firstTable(first)}

Hadidi et al. 2020 (IoT-J), wired at 94.1 Mbit/s and 0.3 ms. Whether they count the device that feeds the input is not clear to us: here all of them compute, and the gateway is one more. Their
*pipeline*, their *earlier method* and their *new method* stand beside what comes closest here.

${laterTable(later)}

## What it stands on

- **Times** are those of the profile \`pi3-2018\` (Raspberry Pi 3, Keras 2.1 on TensorFlow 1.5; scheduler/devices/published.ts). Measured by the authors as such: the five convolutions of
  their AlexNet (48, 128, 192, 192, 128 filters), all of AlexNet, the first fully connected layer of VGG16, fully connected layers of 7,680 inputs by outputs, the two streams, one pool.
  **Sums, not single times:** the convolutions of VGG16 are published as 7.29 s together; each layer gets its part by multiply-accumulates. **Between published points:** other fully connected
  layers, by their number of weights; halves of them the same way.
- All of AlexNet is published as 0.52 s, its layers as 0.20 s (convolutions) and, by the curve, 0.20 s: 0.12 s are in no layer (pools, input, the framework). Plans with whole replicas of AlexNet take the
  0.52 s; plans that divide it are simulated without the 0.12 s, so they come out up to 30 % too fast.
- **Links**: the first table takes their own cost of a message, t = 0.0002 d + 0.002 s with d in kB (5 MB/s, 2 ms). A picture of 227 x 227 x 3 float32 then takes 0.12 s: the device that records it cannot send more
  than 8.1 of them in a second.
- **Memory**: larger layers than 315 MB of weights swap on 1 GB (their fully connected layers do so beyond 10,240 outputs); a plan that would is refused here, not simulated as swapping.
- **Differences from the original**: dispatching, joining of parts and order of runs are ours; sending costs CPU as on our agents, not as in their RPC; devices are equal, undisturbed and never throttle.
  Divided convolutions take their share of the time, without what the halo costs. Optical flow and recording are the gateway's and cost nothing, for no time is published. 400 frames are simulated, with as many in flight as the plan
  admits. Where the last layer of action recognition runs on 8 to 12 devices is not published: here with the pools.

## Why they differ

- **VGG16 on 11**: seven replicas of 7.29 s are 0.96/s at most, so 1.11/s cannot follow from the published time: the convolutions must have run in 6.3 s or less there. On **9** blocks 2 to 4, which are 78 % of
  the convolutions' work, allow 0.53/s on three devices; reported are 0.48/s.
- **AlexNet on 5** is limited by one device with all convolutions: 0.203 s, 4.9/s at most; reported are 4.3. On **6** the convolutions allow 9.9/s and the sender of pictures 8.1/s; reported are 5.7/s. Both reports are below what
  the layers allow; the 0.12 s that are in no layer, added to the convolutions, would give 3.1/s and 6.2/s.
- **Action recognition on 5** is limited by the second and third fully connected layers on one device (0.45 s by the curve, 2.2/s at most); reported are 1.67/s. On **8** one temporal stream of 0.199 s allows 5.0/s; 7.69/s
  would need 0.13 s. On **10** and **12** half of the second fully connected layer (0.17 s by the curve) allows 5.8/s; 9.09 and 10.0 would need 0.11 and 0.10 s. So the published single times are slower than what ran there,
  or windows overlapped in a way that is not published. One device: 0.02/s reported is swapping (all tasks together are 1.3 s, their weights 520 MB, about 1.5 GB in that runtime); here it does not fit.
- **The pipelines of 2020** are reported far below what the layers allow; why is not published. VGG16 has no pipeline here: its first fully connected layer fits no device.

## What \`auto\` does otherwise

Where it divides fully connected layers over more devices, their parts fit into memory and run faster than halves do (the curve of the published times is steeper than linear), and where devices hold replicas of the
other stages as well, none of them waits for another stage.

${plans([...first, ...later])}

In brackets: what is busiest. \`x 7\`: seven replicas; \`/ 2\`: divided into two.
`;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  writeFileSync(REPRODUCTIONS, reproductionsDocument(reproduce()));
  console.log('wrote docs/reproductions.md');
}
