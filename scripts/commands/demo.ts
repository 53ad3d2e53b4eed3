/** `demo` (`npm start`): reads the text in a photo on a gateway and agents that are separate processes, and on one machine beside it. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { AgentStatus } from '../../broker/messages.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { CommandDefinition } from '../command.js';
import type { OcrResult } from '../demo/ocr.js';
import type { OcrPlans } from '../demo/on-cluster.js';
import type { Picture } from '../demo/picture.js';
import { optionText } from '../deploy-options.js';
import { untilStopped } from '../lifetime.js';
import { type Output, wholeNumber } from '../output.js';
import { PROGRAM } from '../package-root.js';
import { bytesText, formatTable, msText } from '../table.js';
import { untilAgentsReady } from './cluster.js';

const PHOTO = fileURLToPath(new URL('../demo/photo.jpg', import.meta.url));
/** Agents report once a second: so long until they have told of the last frame. */
const HEALTH_MS = 1_300;
/** The bound that `verify` uses: this part of the largest output. The detector's and the recogniser's outputs are at most 1. */
const TOLERANCE = 1e-4;

interface Measured {
  readonly plans: OcrPlans;
  readonly cluster: OcrResult;
  readonly before: readonly AgentStatus[];
  readonly after: readonly AgentStatus[];
}

async function measureCluster(
  client: ChairClient,
  photo: Picture,
  dictionary: readonly string[],
  agents: number,
  output: Output,
): Promise<Measured> {
  const { deployOcr, ocrFiles, onCluster } = await import('../demo/on-cluster.js');
  const { readPhoto } = await import('../demo/ocr.js');
  const plans = await deployOcr(client, ocrFiles(), photo, agents, output);
  const models = onCluster(client);
  output.progress('reading the photo on the cluster ...');
  // The first frame opens lanes and touches every page of the weights; the second is what a camera would see.
  await readPhoto(photo, models, dictionary);
  await delay(HEALTH_MS);
  const before = (await client.status()).agents;
  const cluster = await readPhoto(photo, models, dictionary);
  await delay(HEALTH_MS);
  const after = (await client.status()).agents;
  return { plans, cluster, before, after };
}

async function measureOneMachine(photo: Picture, dictionary: readonly string[], output: Output): Promise<OcrResult> {
  output.progress('reading the photo on one machine ...');
  const { createOnnxRuntimeEngine } = await import('../../models/engine/onnxruntime.js');
  const { oneMachine } = await import('../demo/one-machine.js');
  const { ocrFiles } = await import('../demo/on-cluster.js');
  const { readPhoto } = await import('../demo/ocr.js');
  const engine = await createOnnxRuntimeEngine();
  try {
    const models = await oneMachine(engine, ocrFiles());
    await readPhoto(photo, models, dictionary);
    return await readPhoto(photo, models, dictionary);
  } finally {
    await engine.dispose();
  }
}

async function choosePhoto(file: string): Promise<Picture> {
  const { frameOf, readPicture } = await import('../image.js');
  const picture = await readPicture(file);
  const scale = Math.min(1, 1_600 / Math.max(picture.width, picture.height));
  if (scale === 1) return picture;
  const [width, height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
  return { width, height, rgb: (await frameOf(picture, height, width)).bytes };
}

function comparisonText(cluster: OcrResult, one: OcrResult, agents: number, width: number): string {
  const row = (name: string, r: OcrResult): string[] => [
    name,
    msText(r.detectMs),
    msText(r.recogniseMs),
    msText(r.elseMs),
    String(r.lines.length),
  ];
  return formatTable(
    [
      { title: 'where' },
      { title: 'detection', align: 'right' },
      { title: 'recognition', align: 'right' },
      { title: 'boxes, decoding', align: 'right' },
      { title: 'lines', align: 'right' },
    ],
    [row(`${agents} agents, a process each`, cluster), row('one machine, one process', one)],
    width,
  );
}

export const demo: CommandDefinition = {
  name: 'demo',
  summary: 'Read the text in a photo on a gateway and four agents, and on one machine beside it',
  description: 'Starts everything on this machine, as processes of their own, draws what was read into a picture, and ends by itself.',
  options: [
    { flags: '--photo <file>', description: 'another photo; default: the one that is shipped' },
    { flags: '--agents <count>', description: 'number of agents, 1 to 16', default: '4' },
    { flags: '--out <file>', description: 'picture to write', default: 'out/demo.png' },
    { flags: '--stay', description: 'keep the cluster up afterwards, until Ctrl-C' },
    { flags: '--log', description: 'show what the processes write' },
  ],
  json: true,
  examples: [
    { line: 'demo', text: 'the same as npm start' },
    { line: 'demo --photo sign.jpg --stay', text: 'your own photo; the cluster stays up' },
  ],
  run: async ({ options, output }) => {
    const agents = wholeNumber(optionText(options, 'agents', '4'), '--agents', 1, 16);
    const photo = await choosePhoto(optionText(options, 'photo', PHOTO));
    const { ocrFiles } = await import('../demo/on-cluster.js');
    const { readDictionary } = await import('../demo/ctc.js');
    const dictionary = readDictionary(await readFile(ocrFiles().dictionary, 'utf8'));
    const { LocalCluster } = await import('../children.js');
    const { ChairClient } = await import('../../scheduler/client.js');
    const stopped = untilStopped();
    output.progress(`starting a gateway and ${agents} agents, each a process of its own ...`);
    const local = await LocalCluster.start({
      agents,
      threads: 1,
      ...(options.log === true ? { onLine: (child, line) => output.note(`${child}: ${line}`) } : {}),
    });
    try {
      const client = await ChairClient.connect({ brokerUrl: local.url, cluster: 'default' });
      // Ctrl-C ends what is under way: everything that waits on the client fails with STOPPED.
      let interrupted = false;
      void stopped.then(() => {
        interrupted = true;
        return client.close();
      });
      try {
        await untilAgentsReady(client, agents);
        const measured = await measureCluster(client, photo, dictionary, agents, output);
        await tell(
          measured,
          await measureOneMachine(photo, dictionary, output),
          photo,
          agents,
          optionText(options, 'out', 'out/demo.png'),
          output,
        );
      } catch (error) {
        if (interrupted) return;
        throw error;
      } finally {
        await client.close();
      }
      if (options.stay !== true) return;
      output.text(
        `\nThe cluster stays up at ${local.url}. In another terminal:\n  ${PROGRAM} status --insecure --broker ${local.url}\n  ${PROGRAM} infer detection ${optionText(options, 'photo', path.relative(process.cwd(), PHOTO))} --insecure --broker ${local.url}\nCtrl-C stops everything.`,
      );
      await stopped;
    } finally {
      await local.stop();
    }
  },
};

async function tell(m: Measured, one: OcrResult, photo: Picture, agents: number, file: string, output: Output): Promise<void> {
  const { laneRows, lanesMatrix, stageRows, stagesText } = await import('../demo/account.js');
  const { drawResult } = await import('../demo/drawing.js');
  const { largestDifference } = await import('../demo/ocr.js');
  const difference = largestDifference(m.cluster.outputs, one.outputs);
  const { detection, recognition } = m.plans;
  const stages = stageRows(detection, m.after);
  const lanes = laneRows(m.before, m.after);
  const overLanes = lanes.filter((l) => l.lane !== 'local').reduce((sum, l) => sum + l.bytes, 0);
  const bands = detection.seats.filter((s) => s.stage === 0 && s.replica === 0).map((s) => s.agent);
  const notes = [
    `Detection: ${stages.length} stages, ${detection.seats.length} seats on ${agents} agents (${detection.planner})`,
    `Recognition: a replica on ${new Set(recognition.seats.map((s) => s.agent)).size} agents`,
    `Largest difference to one machine: ${difference.toExponential(1)}`,
  ];
  await mkdir(path.dirname(path.resolve(file)), { recursive: true });
  await writeFile(file, await drawResult(photo, m.cluster.lines, { bands, notes }));
  const same = m.cluster.lines.map((l) => l.text).join('\n') === one.lines.map((l) => l.text).join('\n');
  const width = output.columns;
  const report = {
    text: m.cluster.lines.map((l) => ({ text: l.text, confidence: l.confidence })),
    picture: path.resolve(file),
    largestDifference: difference,
    sameText: same,
    plans: m.plans,
    stages,
    lanes,
    cluster: timesOf(m.cluster),
    oneMachine: timesOf(one),
  };
  output.report(report, () =>
    [
      'Text in the photo:',
      ...m.cluster.lines.map((l, i) => `  ${String(i + 1).padStart(2)}  ${l.text.padEnd(40)} ${Math.round(l.confidence * 100)} %`),
      '',
      `Detection, ${detection.seats.length} seats on ${agents} agents (${detection.planner}):`,
      stagesText(stages, width),
      '',
      `Recognition: ${recognition.planner}, a replica on ${recognition.seats
        .map((s) => s.agent)
        .sort()
        .join(', ')}`,
      '',
      `Bytes per lane for this photo (${bytesText(overLanes)} sent by agents; in brackets: handed over inside an agent):`,
      lanesMatrix(lanes, width),
      '',
      comparisonText(m.cluster, one, agents, width),
      `The agents share the ${availableParallelism()} cores of this machine: times show that it works, not how fast devices are.`,
      '',
      `Largest difference between the two: ${difference.toExponential(2)} of at most 1; ${same ? 'the same text' : 'NOT the same text'}.`,
      `Picture: ${path.relative(process.cwd(), path.resolve(file))}`,
    ].join('\n'),
  );
  if (!same || difference > TOLERANCE) {
    const { ChairError } = await import('../../broker/errors.js');
    throw new ChairError('VERIFY_FAILED', 'the cluster and one machine disagree', {
      expected: `the same text and a difference of at most ${TOLERANCE}`,
      came: `${difference}`,
    });
  }
}

function timesOf({ detectMs, recogniseMs, elseMs }: OcrResult) {
  return { detectMs, recogniseMs, elseMs };
}
