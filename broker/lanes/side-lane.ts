/** The dialling end of a connection beside the lane to a peer: it moves with the peer, and is dialled again when it breaks. */
import { ChairError } from '../errors.js';
import type { PeerEntry } from '../messages.js';
import { segmentBytes } from '../segments.js';
import type { Dialler, DiallerOptions } from './dialler.js';
import type { Segments, SideLane, SideLaneOptions } from './lane.js';

export interface DialledSideLaneOptions extends SideLaneOptions {
  readonly peer: string;
  /** Where the peer is; undefined = the table does not name it. */
  readonly entry: PeerEntry | undefined;
  readonly dial: (entry: PeerEntry, hooks: Pick<DiallerOptions, 'onMessage' | 'onChange'>) => Dialler;
  readonly onClose: () => void;
}

export class DialledSideLane implements SideLane {
  readonly #options: DialledSideLaneOptions;
  #dialler: Dialler | undefined;
  #closed = false;

  constructor(options: DialledSideLaneOptions) {
    this.#options = options;
    this.#dial(options.entry);
  }

  get peer(): string {
    return this.#options.peer;
  }

  get state(): 'up' | 'trying' | 'down' {
    if (this.#dialler?.lane !== undefined) return 'up';
    return this.#dialler?.isFirst === true ? 'trying' : 'down';
  }

  async send(topic: string, payload: Segments): Promise<boolean> {
    const lane = this.#dialler?.lane;
    if (lane === undefined) throw new ChairError('LANE_DOWN', `no connection beside the lane to ${this.peer}`);
    return lane.publish(topic, payload, segmentBytes(payload));
  }

  /** The peer is here now. */
  move(entry: PeerEntry | undefined): void {
    const before = this.#dialler;
    if (this.#closed || (entry === undefined && before === undefined)) return;
    if (entry !== undefined && before !== undefined && (isSame(entry, before.entry) || before.readdress(entry))) return;
    before?.stop(new Error('the peer table has changed'));
    this.#dial(entry);
    this.#options.onChange();
  }

  /** See `Lanes.readdress`. */
  leave(own: ReadonlySet<string>): void {
    this.#dialler?.leave(own);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#dialler?.stop(new ChairError('STOPPED', `the connection beside the lane to ${this.peer} was closed`));
    this.#dialler = undefined;
    this.#options.onClose();
  }

  #dial(entry: PeerEntry | undefined): void {
    const { dial, onMessage, onChange } = this.#options;
    this.#dialler = undefined;
    if (entry === undefined || entry.lanePort === 0) return;
    const dialler = dial(entry, {
      onMessage: (frame) => {
        if (this.#dialler === dialler) onMessage(frame);
      },
      onChange: () => {
        if (this.#dialler === dialler) onChange();
      },
    });
    this.#dialler = dialler;
    dialler.start();
  }
}

/** In whatever order its addresses are tried. */
function isSame(a: PeerEntry, b: PeerEntry): boolean {
  return a.lanePort === b.lanePort && a.addresses.toSorted().join() === b.addresses.toSorted().join();
}
