/** What is known of links, on disk. */
import { KeptRows, type KeptRowsOptions } from '../kept-rows.js';
import type { LinkEntry } from './table.js';

/** A row of the table; no clock outlives its process, so its age stands in the place of its time. */
export type SavedLink = Pick<LinkEntry, 'from' | 'to' | 'lane' | 'bytesPerSecond' | 'latencyMs' | 'spread' | 'source'> & {
  readonly ageMs: number;
};

export type LinkFileOptions = Pick<KeptRowsOptions, 'file' | 'problems' | 'log'>;

export class LinkFile extends KeptRows<SavedLink> {
  constructor(options: LinkFileOptions) {
    super({
      ...options,
      ...{ format: 1, what: 'links', soonMs: 2000, laterMs: 10 * 60_000 },
      lost: 'links that were known are measured again',
      unsaved: 'links that are measured are not kept over a restart',
    });
  }
}
