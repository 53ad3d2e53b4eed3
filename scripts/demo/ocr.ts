/** Reading a photo: detection, boxes, straightened lines, recognition, text. Where the networks run is the caller's business (`OcrModels`). */
import type { ImageInput } from '../../broker/messages.js';
import type { Tensor } from '../../broker/tensor.js';
import { findBoxes, type TextBox } from './boxes.js';
import { decodeCtc } from './ctc.js';
import { type Picture, padRight, splitLine, straighten } from './picture.js';

/** Size the recogniser reads: a line 48 pixels high, at most 320 wide. */
export const LINE_HEIGHT = 48;
export const LINE_WIDTH = 320;
/** Size the detector sees the photo in. */
export const DETECTOR_SIZE = 640;
export const DETECTOR_SHAPE = [1, 3, DETECTOR_SIZE, DETECTOR_SIZE] as const;
export const RECOGNISER_SHAPE = [1, 3, LINE_HEIGHT, LINE_WIDTH] as const;

/** PP-OCR is trained on images read by OpenCV, so blue comes first; the means are used in that order as they stand. */
export function detectorImage(photo: { readonly width: number; readonly height: number }): ImageInput {
  return { input: 'x', height: photo.height, width: photo.width, order: 'bgr', mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
}

export const RECOGNISER_IMAGE: ImageInput = {
  input: 'x',
  height: LINE_HEIGHT,
  width: LINE_WIDTH,
  order: 'bgr',
  mean: [0.5, 0.5, 0.5],
  std: [0.5, 0.5, 0.5],
};

/** The two networks, wherever they run. */
export interface OcrModels {
  /** Photo in, probability map `[1, 1, 640, 640]` out. */
  detect(photo: Picture): Promise<Tensor>;
  /** Lines of 48 x 320 in, `[1, steps, classes]` each out, in order. */
  recognise(lines: readonly Picture[]): Promise<Tensor[]>;
}

export interface TextLine {
  readonly box: TextBox;
  readonly text: string;
  readonly confidence: number;
}

export interface OcrResult {
  readonly lines: readonly TextLine[];
  /** Raw outputs of the networks, for comparing: the map, then one per piece of a line. */
  readonly outputs: readonly Tensor[];
  readonly detectMs: number;
  readonly recogniseMs: number;
  /** Boxes, straightening and decoding on this machine. */
  readonly elseMs: number;
}

/** A float32 tensor's values, viewed. */
export function floats(tensor: Tensor): Float32Array {
  return new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.length / 4);
}

/** Readings below this are not text. */
const MINIMUM_CONFIDENCE = 0.5;

export async function readPhoto(photo: Picture, models: OcrModels, dictionary: readonly string[]): Promise<OcrResult> {
  const started = performance.now();
  const map = await models.detect(photo);
  const detected = performance.now();
  const [, , height = 1, width = 1] = map.dims;
  const boxes = findBoxes({ values: floats(map), width, height }, photo);
  const pieces = boxes.map((box) => splitLine(straighten(photo, box.rectangle, LINE_HEIGHT), LINE_WIDTH));
  const prepared = performance.now();
  const outputs = await models.recognise(pieces.flat().map((p) => padRight(p, LINE_WIDTH)));
  const recognised = performance.now();
  const lines: TextLine[] = [];
  let next = 0;
  for (const [i, box] of boxes.entries()) {
    const own = outputs.slice(next, next + (pieces[i]?.length ?? 0));
    next += own.length;
    const readings = own.map((t) => decodeCtc(floats(t), t.dims[2] ?? 1, dictionary)).filter((r) => r.text !== '');
    const confidence = readings.reduce((sum, r) => sum + r.confidence, 0) / Math.max(1, readings.length);
    const text = readings.map((r) => r.text.trim()).join(' ');
    if (text !== '' && confidence >= MINIMUM_CONFIDENCE) lines.push({ box, text, confidence });
  }
  const detectMs = detected - started;
  const recogniseMs = recognised - prepared;
  return { lines, outputs: [map, ...outputs], detectMs, recogniseMs, elseMs: performance.now() - started - detectMs - recogniseMs };
}

/** Largest absolute difference between two lists of outputs; Infinity when they do not even have the same shapes. */
export function largestDifference(a: readonly Tensor[], b: readonly Tensor[]): number {
  if (a.length !== b.length || a.some((t, i) => t.dims.join() !== b[i]?.dims.join())) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (const [i, tensor] of a.entries()) {
    const other = b[i];
    if (other === undefined) continue;
    const [x, y] = [floats(tensor), floats(other)];
    for (let k = 0; k < x.length; k++) largest = Math.max(largest, Math.abs((x[k] ?? 0) - (y[k] ?? 0)));
  }
  return largest;
}
