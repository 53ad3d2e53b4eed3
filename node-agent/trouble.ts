/** Tells the dispatcher that a frame will not come through here: once per (frame, attempt, peer), however many messages it concerns. */
import type { Bus } from '../broker/bus.js';
import { toChairError } from '../broker/errors.js';
import type { Topics } from '../broker/topics.js';
import type { EpochKey } from './epochs.js';

const REMEMBERED = 1024;
const MESSAGE_CHARACTERS = 500;

export class TroubleReporter {
  /** Reports that could not be published: then only the dispatcher's deadline tells. */
  lost = 0;
  private readonly told = new Set<string>();

  constructor(
    private readonly agent: string,
    private readonly bus: Bus,
    private readonly topics: () => Topics,
    private readonly log: (line: string) => void,
  ) {}

  /** `peer`: who could not be reached, '' when the fault is here. Never throws. */
  report(key: EpochKey, frame: { readonly frame: number; readonly attempt: number }, peer: string, error: unknown): void {
    const { term, deployment, epoch } = key;
    const { frame: number, attempt } = frame;
    const id = `${term}/${epoch}/${deployment}/${number}/${attempt}/${peer}`;
    if (this.told.has(id)) return;
    this.told.add(id);
    if (this.told.size > REMEMBERED)
      for (const oldest of this.told) {
        this.told.delete(oldest);
        break;
      }
    const { code, message } = toChairError(error);
    this.log(`trouble: ${deployment} frame ${number} attempt ${attempt}${peer === '' ? '' : ` to ${peer}`}: ${code} ${message}`);
    this.bus
      .publish(this.topics().trouble, {
        agent: this.agent,
        deployment,
        term,
        epoch,
        frame: number,
        attempt,
        peer,
        code,
        message: message.slice(0, MESSAGE_CHARACTERS),
      })
      .catch(() => this.lost++);
  }
}
