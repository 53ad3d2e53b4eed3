/**
 * Whom chunks of blobs are asked of, and on which way: the gateway, on a connection beside the lane to it, or through the broker where no such connection can be made. The
 * first costs a fraction of the processor's time: what comes through the broker is read, copied and collected as garbage several times over.
 */
import { type BlobChunkHeader, decodeBlobChunk, type LaneRecord, MAX_BLOB_CHUNK_BYTES } from '../broker/activation.js';
import type { Bus } from '../broker/bus.js';
import { encode } from '../broker/codec.js';
import type { Lanes, Segments, SideLane } from '../broker/lanes/lane.js';
import type { BlobRequest } from '../broker/messages.js';
import { DISPATCHER, type Topics } from '../broker/topics.js';

export interface ChunkSourceOptions {
  readonly bus: Bus;
  /** Default: everything comes through the broker. */
  readonly lanes?: Pick<Lanes, 'beside'> | undefined;
  readonly topics: () => Topics;
  readonly agent: string;
  readonly onChunk: (chunk: LaneRecord<BlobChunkHeader>) => void;
  /** Chunks can be asked for, and those that were may be lost. */
  readonly onReady: () => void;
  /** How long the connection may take before the broker is asked; default 2,000. */
  readonly graceMs?: number | undefined;
  /** How long it is kept when nothing is fetched; default 10,000. */
  readonly idleMs?: number | undefined;
}

/** Through the broker small enough that health and commands slip in between on a slow link; beside it each costs as much as some 100 KB of its bytes. */
const CHUNK_BYTES = { bus: 512 * 1024, side: 1024 * 1024 };
/** Header and topic of a chunk. */
const HEADER_BYTES = 4096;

export class ChunkSource {
  private side: SideLane | undefined;
  private was: SideLane['state'] = 'down';
  private holders = 0;
  /** Runs while the connection is waited for. */
  private grace: NodeJS.Timeout | undefined;
  /** The last one came up in time: whoever cannot reach the gateway waits for that once. */
  private isReached = true;
  private idle: NodeJS.Timeout | undefined;
  /** When something came on the connection, and whether it is one on which nothing comes. */
  private heardMs = Number.NEGATIVE_INFINITY;
  private isMute = false;
  private requests = 0;
  private unsubscribe: (() => Promise<void>) | undefined;
  private offConnect: (() => void) | undefined;

  constructor(private readonly options: ChunkSourceOptions) {}

  async start(): Promise<void> {
    const { bus, topics, agent, onReady } = this.options;
    this.unsubscribe = await bus.subscribeBytes(topics().blobChunk(agent).name, (payload) => this.take([payload]));
    this.offConnect = bus.onConnect(() => {
      if (this.way === 'bus') onReady();
    });
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    this.offConnect?.();
    this.offConnect = undefined;
    this.close();
    const unsubscribe = this.unsubscribe;
    this.unsubscribe = undefined;
    await unsubscribe?.().catch(() => undefined);
  }

  /** Something is to be fetched, until the function returned is called. */
  hold(): () => void {
    const { lanes, graceMs = 2000, idleMs = 10_000 } = this.options;
    this.holders++;
    clearTimeout(this.idle);
    if (this.side === undefined && lanes !== undefined) {
      this.side = lanes.beside(DISPATCHER, {
        maxMessageBytes: MAX_BLOB_CHUNK_BYTES + HEADER_BYTES,
        onMessage: ({ payload }) => {
          this.take(payload);
          // Not what nobody understands.
          this.heardMs = performance.now();
          this.isMute = false;
        },
        onChange: () => this.changed(),
      });
      this.was = this.side.state;
      if (this.isReached) this.grace = setTimeout(() => this.giveUp(), graceMs);
    }
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      if (--this.holders === 0 && this.side !== undefined) this.idle = setTimeout(() => this.close(), idleMs);
    };
  }

  /** How much is best asked for at once. */
  get chunkBytes(): number {
    return CHUNK_BYTES[this.way ?? 'bus'];
  }

  /** False: there is nobody to ask; `onReady` comes. */
  get isReady(): boolean {
    return this.way !== undefined;
  }

  /** Whether an answer comes is for the caller to watch. */
  ask(wanted: Pick<BlobRequest, 'sha256' | 'offset' | 'length'>): void {
    const { bus, topics, agent } = this.options;
    const { way, side } = this;
    const request: BlobRequest = { agent, id: `${agent}-${this.requests++}`, ...wanted };
    const topic = topics().blobRequest;
    const sending =
      way === 'side' && side !== undefined
        ? side.send(topic.name, [encode(topic.schema, request, topic.version)])
        : bus.publish(topic, request);
    // What is not sent is as good as lost.
    sending.catch(() => undefined);
  }

  /** What was asked for at this time has not come. A gateway that hears us and does not answer may do so through the broker. */
  late(askedMs: number): void {
    if (this.side?.state === 'up' && this.heardMs < askedMs) this.isMute = true;
  }

  private get way(): 'side' | 'bus' | undefined {
    const { connected } = this.options.bus;
    const state = this.side?.state;
    if (state === 'up' && !(this.isMute && connected)) return 'side';
    if (state === 'trying' && this.grace !== undefined) return undefined;
    return connected ? 'bus' : undefined;
  }

  private changed(): void {
    const { bus, onReady } = this.options;
    const [before, now] = [this.was, this.side?.state ?? 'down'];
    if (before === now) return;
    this.was = now;
    this.isMute = false;
    if (now === 'up') this.isReached = true;
    const waited = before === 'trying' && this.grace !== undefined;
    // What was asked through the broker is on its way.
    if (before !== 'up' && !waited && bus.connected) return;
    if (this.way !== undefined) onReady();
  }

  /** The connection takes too long. */
  private giveUp(): void {
    this.grace = undefined;
    if (this.side?.state !== 'trying') return;
    this.isReached = false;
    if (this.way === 'bus') this.options.onReady();
  }

  private take(payload: Segments): void {
    this.options.onChunk(decodeBlobChunk(payload));
  }

  private close(): void {
    clearTimeout(this.grace);
    clearTimeout(this.idle);
    this.grace = undefined;
    this.side?.close();
    this.side = undefined;
  }
}
