/** The same work on one machine: the original models on the bare engine, images prepared here. It shares nothing with the cut models but the files. */
import type { ImageInput } from '../../broker/messages.js';
import { allocTensor, type Tensor } from '../../broker/tensor.js';
import type { Engine } from '../../models/engine/engine.js';
import { DETECTOR_SHAPE, detectorImage, floats, type OcrModels, RECOGNISER_IMAGE, RECOGNISER_SHAPE } from './ocr.js';
import type { Picture } from './picture.js';

/**
 * Resizes (bilinear, half-pixel centres, no smoothing) and normalises: uint8 RGB to float32 `[1, 3, H, W]`, as a deployment's image input
 * declares it.
 */
export function imageTensor(picture: Picture, image: ImageInput, dims: readonly number[]): Tensor {
  const [, , height = 1, width = 1] = dims;
  const tensor = allocTensor('float32', dims);
  const out = floats(tensor);
  const axis = (size: number, from: number) =>
    Array.from({ length: size }, (_, i) => {
      const at = Math.min(Math.max(((i + 0.5) * from) / size - 0.5, 0), from - 1);
      const low = Math.floor(at);
      return { low, high: Math.min(low + 1, from - 1), part: at - low };
    });
  const rows = axis(height, picture.height);
  const cols = axis(width, picture.width);
  for (let c = 0; c < 3; c++) {
    const channel = image.order === 'bgr' ? 2 - c : c;
    const [mean = 0, std = 1] = [image.mean[c], image.std[c]];
    let at = c * height * width;
    for (const row of rows) {
      for (const col of cols) {
        const pixel = (y: number, x: number): number => picture.rgb[(y * picture.width + x) * 3 + channel] ?? 0;
        const top = pixel(row.low, col.low) * (1 - col.part) + pixel(row.low, col.high) * col.part;
        const bottom = pixel(row.high, col.low) * (1 - col.part) + pixel(row.high, col.high) * col.part;
        out[at++] = ((top * (1 - row.part) + bottom * row.part) / 255 - mean) / std;
      }
    }
  }
  return tensor;
}

/** Loads both models on an engine. The caller disposes the engine. */
export async function oneMachine(engine: Engine, files: { readonly detector: string; readonly recogniser: string }): Promise<OcrModels> {
  const detector = await engine.load(files.detector);
  const recogniser = await engine.load(files.recogniser);
  const first = (outputs: Readonly<Record<string, Tensor>>): Tensor => Object.values(outputs)[0] ?? allocTensor('float32', [0]);
  return {
    detect: async (photo) => {
      const { outputs } = await detector.run({ x: imageTensor(photo, detectorImage(photo), DETECTOR_SHAPE) }, { transfer: true });
      return first(outputs);
    },
    recognise: async (lines) => {
      const results: Tensor[] = [];
      for (const line of lines) {
        const { outputs } = await recogniser.run({ x: imageTensor(line, RECOGNISER_IMAGE, RECOGNISER_SHAPE) }, { transfer: true });
        results.push(first(outputs));
      }
      return results;
    },
  };
}
