/** The seam between deciding and computing: what the scheduler needs of a model. Real: model-library.ts; tests use a small fake. */
import type { DeployRequest } from '../broker/messages.js';
import type { TensorInfo } from '../broker/tensor.js';
import type { WrittenCut } from './plan-builder.js';
import type { ModelFacts, PlanDraft } from './planners/problem.js';

export interface LoadedModel {
  readonly sha256: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly facts: ModelFacts;
  /** Writes the slices of a draft into the store. */
  write(draft: PlanDraft): Promise<WrittenCut>;
  /** Compares the slices with the whole model on random inputs. Throws VERIFY_FAILED. */
  verify(written: WrittenCut): Promise<void>;
}

export interface ManualCut {
  readonly kind: string;
  readonly parts: number;
}

export interface ModelSource {
  /** Throws MODEL_... codes. */
  load(request: Pick<DeployRequest, 'model' | 'shapes' | 'images'>): Promise<LoadedModel>;
  /** `rows:4`, also `replicas:3`; `shares` may be empty. Throws CUT_INVALID. */
  parseCut(text: string, shares: readonly number[]): ManualCut;
}
