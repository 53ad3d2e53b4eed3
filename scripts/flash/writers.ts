/** The first-boot writers, and which one an image gets: chosen by looking into it. Another mechanism is one more file and one more line here. */
import { ChairError } from '../../broker/errors.js';
import { cloudInit } from './cloud-init.js';
import type { FirstBootWriter } from './first-boot.js';
import { firstrun } from './firstrun.js';
import type { ImageFacts } from './image.js';

/** In order: an image that knows both (early releases of 13) is set up the newer way. */
export const WRITERS: readonly FirstBootWriter[] = [cloudInit, firstrun];

/** Throws FLASH_IMAGE_FOREIGN. */
export function chooseWriter(facts: ImageFacts, writers: readonly FirstBootWriter[] = WRITERS): FirstBootWriter {
  const reasons: string[] = [];
  for (const writer of writers) {
    const lack = writer.lacks(facts);
    if (lack === undefined) return writer;
    reasons.push(`${writer.name}: ${lack}`);
  }
  throw new ChairError('FLASH_IMAGE_FOREIGN', 'this image knows no first boot that can be used', {
    expected: 'cloud-init (Raspberry Pi OS 13) or firstrun.sh (12 and before)',
    came: reasons.join('; '),
  });
}
