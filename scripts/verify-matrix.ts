/** The matrix of `verify:all`: which models, which cuts, and what must hold beyond equal outputs. */
import path from 'node:path';
import type { VerifyReport } from '../models/slicing/verify.js';
import { buildZoo, ZOO } from '../models/zoo/index.js';
import { ocrFiles } from './demo/on-cluster.js';

export interface MatrixModel {
  readonly name: string;
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** Path of the model's file; built below `folder` if need be. */
  readonly file: (folder: string) => Promise<string>;
}

export interface MatrixCase {
  readonly cut: string;
  readonly shares?: readonly number[];
}

export interface MatrixResult {
  readonly model: string;
  readonly case: MatrixCase;
  /** `refused`: the cut applies to no part of the model; `reason` says why. */
  readonly outcome: 'equal' | 'refused' | 'failed';
  readonly reason?: string;
  readonly report?: VerifyReport;
  readonly ms: number;
}

function ocrModels(): MatrixModel[] {
  const { detector, recogniser } = ocrFiles();
  const classifier = path.join(path.dirname(detector), 'ch_ppocr_mobile_v2.0_cls_infer.onnx');
  const model = (name: string, file: string, height: number, width: number): MatrixModel => ({
    name,
    shapes: { x: [1, 3, height, width] },
    file: async () => file,
  });
  return [
    model('PP-OCRv4 det 640x640', detector, 640, 640),
    model('PP-OCRv4 rec 48x320', recogniser, 48, 320),
    model('PP-OCR cls 48x192', classifier, 48, 192),
  ];
}

/** All models at full size; with `narrow`, the zoo at an eighth of the width (the text models are as they are). */
export function matrixModels(narrow: boolean): MatrixModel[] {
  const zoo = ZOO.map((name): MatrixModel => {
    const small = { scale: 0.125, size: name.startsWith('alexnet') ? 99 : 64, classes: 20 };
    return {
      name: narrow ? `${name} (narrow)` : name,
      file: async (folder) => {
        const file = path.join(folder, `${name}.onnx`);
        await buildZoo(name, file, narrow ? small : {});
        return file;
      },
    };
  });
  return [...ocrModels(), ...zoo];
}

const KINDS = ['rows', 'columns', 'channels', 'inputs', 'pair', 'stages', 'auto'] as const;

/** Every kind of cut with each number of parts, even and uneven (shares n, n-1, ..., 1). */
export function matrixCases(parts: readonly number[], kinds: readonly string[] = KINDS): MatrixCase[] {
  return kinds.flatMap((kind) =>
    parts.flatMap((n): MatrixCase[] => [
      { cut: `${kind}:${n}` },
      { cut: `${kind}:${n}`, shares: Array.from({ length: n }, (_, i) => n - i) },
    ]),
  );
}

interface Bound {
  readonly model: RegExp;
  readonly cut: string;
  readonly minCovered: number;
  readonly maxTotal: number;
  readonly maxPart: number;
}

/** What a cut must achieve besides the right answer, at full size and with even shares. */
export const BOUNDS: readonly Bound[] = [
  { model: /^(alexnet|vgg16)-features$/, cut: 'rows:4', minCovered: 0.9, maxTotal: 1.3, maxPart: 0.35 },
  { model: /^PP-OCRv4 det/, cut: 'rows:4', minCovered: 0.8, maxTotal: 1.3, maxPart: 0.35 },
  { model: /^(alexnet|vgg16)$/, cut: 'channels:4', minCovered: 0.95, maxTotal: 1.3, maxPart: 0.35 },
];

/** The bound that a report breaks, in words; undefined when all hold. */
export function brokenBound(model: string, { cut, shares }: MatrixCase, report: VerifyReport): string | undefined {
  if (shares !== undefined) return undefined;
  const bound = BOUNDS.find((b) => b.model.test(model) && b.cut === cut);
  if (bound === undefined) return undefined;
  const { coveredMacsRatio, totalMacsRatio, maxPartMacsRatio } = report;
  if (coveredMacsRatio < bound.minCovered) return `covers ${coveredMacsRatio.toFixed(3)} of the work, must be at least ${bound.minCovered}`;
  if (totalMacsRatio > bound.maxTotal) return `costs ${totalMacsRatio.toFixed(3)} times the work, must be at most ${bound.maxTotal}`;
  if (maxPartMacsRatio > bound.maxPart) return `largest part ${maxPartMacsRatio.toFixed(3)} of the work, must be at most ${bound.maxPart}`;
  return undefined;
}
