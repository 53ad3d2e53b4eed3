/** Whom an operator drains, on disk: a gateway that was killed and started again gives those agents no seats either. */
import { KeptRows, type KeptRowsOptions } from './kept-rows.js';
import type { Drain } from './registry.js';

export type DrainsFileOptions = Pick<KeptRowsOptions, 'file' | 'problems' | 'log'>;

export class DrainsFile extends KeptRows<Drain> {
  constructor(options: DrainsFileOptions) {
    super({
      ...options,
      // Somebody waits for it; a disk that was full is tried again.
      ...{ format: 1, what: 'drains', soonMs: 0, laterMs: 5000 },
      lost: 'agents that were drained get seats again: drain them anew',
      unsaved: 'agents that are drained would get seats again after a restart',
    });
  }
}
