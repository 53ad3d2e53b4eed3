/** How real frames ran against predictions, on disk: else plans would stand on a probe again after each restart of the gateway. */
import { KeptRows, type KeptRowsOptions } from '../kept-rows.js';
import type { SavedCorrection } from './correction.js';

export type CorrectionFileOptions = Pick<KeptRowsOptions, 'file' | 'problems' | 'log'>;

export class CorrectionFile extends KeptRows<SavedCorrection> {
  constructor(options: CorrectionFileOptions) {
    super({
      ...options,
      ...{ format: 2, what: 'corrections', soonMs: 5 * 60_000, laterMs: 5 * 60_000 },
      lost: 'how far real frames are from predictions is learned anew',
      unsaved: 'how far real frames are from predictions is not kept over a restart',
    });
  }
}
