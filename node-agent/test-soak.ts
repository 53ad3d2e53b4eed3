/**
 * The data path of one agent under everything that can happen to it at once, every byte looked at: real lanes, inbox, joins, runner and forwarder; neighbours that send
 * whole, cut, coded, encoded, empty and large inputs, twice, again, or for an epoch that is not prepared yet; connections that break in mid-message; frames cancelled at
 * any time; weights beside it all. Memory that is given back is overwritten at once, so whoever still looks at it sees that.
 * Long, as one world is set up, driven and let go here; what is sent is in test-soak-input.ts.
 */
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeActivation, encodeBox } from '../broker/activation.js';
import { encode } from '../broker/codec.js';
import type { Lanes, SideLane } from '../broker/lanes/lane.js';
import { createLanes, type LanesOptions } from '../broker/lanes/lanes.js';
import { listen } from '../broker/listen.js';
import { Refusals } from '../broker/refusals.js';
import { Repetition } from '../broker/repetition.js';
import { discard, SegmentReader } from '../broker/segments.js';
import type { Tensor } from '../broker/tensor.js';
import { startProxy } from '../broker/test-brokers.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import type { Session } from '../models/engine/engine.js';
import { EarlyBuffer } from './early.js';
import type { Epoch, EpochKey, Epochs } from './epochs.js';
import { Forwarder } from './forward.js';
import { Inbox } from './inbox.js';
import { FrameBudget, JoinTable, type ReadyFrame } from './join.js';
import { Runner } from './runner.js';
import { SeatTable } from './seats.js';
import { AGENT, boxOf, contents, IDLE_BYTES, KINDS, type Kind, MIB, NEXT, planOf, SENDERS, same, TellingPool } from './test-soak-input.js';

const LOCAL = ['127.0.0.1'];
const ROUTE = [0, 0, 0];
const MOST_BUSY_MS = 40_000;
/** Of the first attempt; doubles with each, so that on a busy machine one of them comes through. */
const AGAIN_MS = 500;

// ---- the world ----------------------------------------------------------------------------------------------------------------

export interface SoakOptions {
  readonly seconds: number;
  /** [0, 1). */
  readonly random: () => number;
  /** For TLS; by name. */
  readonly lanes?: (name: string) => Partial<LanesOptions>;
  /** Connections are broken so often; 0 = never. */
  readonly cutMs?: number;
}

export interface SoakFigures {
  /** What must not be; empty when all is well. */
  readonly wrong: readonly string[];
  frames: number;
  bytes: number;
  adopted: number;
  runs: number;
  cancelled: number;
  again: number;
  twice: number;
  epochs: number;
  cuts: number;
  blobs: number;
  refusedFull: number;
  late: number;
}

interface Flight {
  readonly frame: number;
  attempt: number;
  sentMs: number;
}

/** One deployment of a kind: what is under way, and the epoch that is prepared. */
interface Service {
  readonly kind: Kind;
  readonly deployment: string;
  readonly first: number;
  readonly flights: Map<number, Flight>;
  plan: SeatTable;
  epoch: Epoch | undefined;
  number: number;
  next: number;
}

class Soak {
  readonly figures: SoakFigures & { wrong: string[] };
  readonly #o: SoakOptions;
  readonly #topics = topicsOf('soak');
  readonly #pool: TellingPool;
  readonly #theirs = new TellingPool(IDLE_BYTES);
  readonly #budget = new FrameBudget(12 * MIB);
  readonly #lanes = new Map<string, Lanes>();
  readonly #proxies: Awaited<ReturnType<typeof startProxy>>[] = [];
  readonly #services: Service[] = [];
  readonly #frameOf = new WeakMap<object, { service: Service; frame: ReadyFrame }>();
  readonly #released = new Set<Epoch>();
  readonly #inbox: Inbox;
  readonly #runner: Runner;
  readonly #forwarder: Forwarder;
  readonly #busy = new Set<Promise<unknown>>();
  /** To us, to the next agent, to the gateway. */
  readonly #cameOn = [0, 0, 0];
  #side: SideLane | undefined;
  #halting: Awaited<ReturnType<typeof startHalting>> | undefined;
  #order = 0;

  constructor(options: SoakOptions, own: Lanes, pool: TellingPool) {
    this.#o = options;
    this.#pool = pool;
    this.figures = {
      wrong: [],
      ...{
        frames: 0,
        bytes: 0,
        adopted: 0,
        runs: 0,
        cancelled: 0,
        again: 0,
        twice: 0,
        epochs: 0,
        cuts: 0,
        blobs: 0,
        refusedFull: 0,
        late: 0,
      },
    };
    this.#lanes.set(AGENT, own);
    const nowMs = () => performance.now();
    const buffers = this.#pool;
    const onReady = (epoch: Epoch, frame: ReadyFrame) => {
      const service = this.#services.find(({ deployment }) => deployment === epoch.deployment);
      if (service !== undefined) this.#frameOf.set(frame.inputs, { service, frame });
      for (const { bytes } of Object.values(frame.inputs)) if (bytes.byteOffset > 0) this.figures.adopted++;
      this.#runner.push({ epoch, frame });
    };
    this.#runner = new Runner({
      ...{ budget: this.#budget, buffers, nowMs },
      onOutputs: (job, outputs) => this.#forwarder.forward(job, outputs),
      onFailure: (job, error) => this.#wrong(`a run of frame ${job.frame.frame} of ${job.epoch.deployment}: ${String(error)}`),
    });
    const purge = () => {
      this.#runner.purge();
      own.purge();
    };
    this.#forwarder = new Forwarder({
      ...{ lanes: own, topics: this.#topics, budget: this.#budget, buffers, nowMs, onReady },
      onRefused: (_epoch, frame, refusal) => this.#wrong(`an output of frame ${frame.frame} was refused: ${refusal}`),
      // Its connection broke: the frame is sent again.
      onFailure: () => undefined,
      onRawFallback: (_epoch, wire, why) => this.#wrong(`wire ${wire} was sent raw: ${why}`),
    });
    const epochs = {
      find: (key: EpochKey) =>
        this.#services.find(({ deployment, epoch }) => deployment === key.deployment && epoch?.epoch === key.epoch)?.epoch,
      isStale: (key: EpochKey) => [...this.#released].some(({ deployment, epoch }) => deployment === key.deployment && epoch >= key.epoch),
    } as unknown as Epochs;
    this.#inbox = new Inbox({
      ...{ epochs, buffers, nowMs, onReady, onUnwanted: purge },
      early: new EarlyBuffer(8 * MIB, 2000),
      onTrouble: (_key, frame, error) => {
        if (String(error).includes('no memory left') || String(error).includes('is not prepared here')) this.figures.refusedFull++;
        else this.#wrong(`frame ${frame.frame}: ${String(error)}`);
      },
      repetition: new Repetition((line) => this.#wrong(line)),
      refusals: new Refusals(),
    });
  }

  #wrong(what: string): void {
    if (this.figures.wrong.length < 20) this.figures.wrong.push(what);
  }

  readonly #below = (n: number): number => Math.floor(this.#o.random() * n);

  // ---- setting up ------------------------------------------------------------------------------------------------------------

  async start(): Promise<void> {
    const own = this.#lanes.get(AGENT) as Lanes;
    const topics = this.#topics;
    own.on(topics.activation(AGENT), (message) => this.#inbox.activation(message));
    own.on(topics.cancel(AGENT).name, (message) => this.#inbox.cancel(message));
    await own.start();
    const next = this.#make(NEXT, { buffers: this.#theirs });
    const gateway = this.#make(DISPATCHER, { buffers: this.#theirs });
    next.on(topics.activation(NEXT), (message) => this.#came(new SegmentReader(message.payload), message.payloadBytes));
    gateway.on(topics.blobRequest.name, (message) => {
      const size = 5 + this.#below(MIB);
      discard(message.payload);
      const chunk = this.#theirs.take(size);
      for (let i = 0; i < size; i++) chunk[i] = (size + i * 13) & 0xff;
      void message.answer?.(topics.blobChunk(AGENT).name, [chunk]).then(
        () => this.#theirs.give(chunk),
        () => undefined,
      );
    });
    await Promise.all([next.start(), gateway.start()]);
    for (const lanes of [own, next, gateway]) this.#proxies.push(await startProxy(lanes.port));
    const ports = this.#proxies.map(({ port }) => port);
    // The next agent reads in fits and starts: what waits for it is dropped, or goes in parts.
    const halting = await startHalting(ports[1] ?? 0, this.#below);
    this.#halting = halting;
    const senders = Array.from({ length: SENDERS }, (_, i) => `s${i}`);
    const known = [...senders, NEXT].map((agent) => ({ agent, addresses: LOCAL, lanePort: 0 }));
    next.setPeers([{ agent: AGENT, addresses: LOCAL, lanePort: 0 }]);
    gateway.setPeers([{ agent: AGENT, addresses: LOCAL, lanePort: 0 }]);
    own.setPeers([
      ...known.filter(({ agent }) => agent !== NEXT),
      { agent: NEXT, addresses: LOCAL, lanePort: halting.port },
      { agent: DISPATCHER, addresses: LOCAL, lanePort: ports[2] ?? 0 },
    ]);
    for (const [i, name] of senders.entries()) {
      const lanes = this.#make(name, { listen: false });
      await lanes.start();
      // Every other one through what breaks.
      lanes.setPeers([{ agent: AGENT, addresses: LOCAL, lanePort: (i % 2 === 0 ? ports[0] : own.port) ?? 0 }]);
    }
    KINDS.forEach((kind, first) => {
      const service = { kind, first, deployment: kind.name, flights: new Map(), epoch: undefined, number: 0, next: 1 };
      this.#services.push({ ...service, plan: new SeatTable(AGENT, planOf(kind, first, kind.name, 0)) });
    });
    for (const service of this.#services) await this.#prepare(service, 0);
    this.#side = own.beside(DISPATCHER, {
      maxMessageBytes: 2 * MIB,
      onMessage: ({ payload, payloadBytes }) => this.#track(this.#chunk(new SegmentReader(payload), payloadBytes)),
      onChange: () => undefined,
    });
  }

  #make(id: string, options: Partial<LanesOptions>): Lanes {
    const lanes = createLanes({
      ...soakLane(id),
      ...options,
      ...this.#o.lanes?.(id),
      onRefused: (_topic, error) => this.#refused(id, error),
    });
    this.#lanes.set(id, lanes);
    return lanes;
  }

  #refused(id: string, error: Error): void {
    // The listener tells of connections that broke as well.
    if (/CODEC|PACKET|SENDER/.test(String((error as { code?: string }).code))) this.#wrong(`${id} refused: ${error.message}`);
  }

  refusedHere(error: Error): void {
    this.#refused(AGENT, error);
  }

  #track(work: Promise<unknown>): void {
    const done = work.catch((error) => this.#wrong(String(error))).finally(() => this.#busy.delete(done));
    this.#busy.add(done);
  }

  /** The next epoch; messages for it may come `earlyMs` before it is there. */
  async #prepare(service: Service, earlyMs: number): Promise<void> {
    const { deployment, kind, first } = service;
    const before = service.epoch;
    service.number++;
    const prepare = planOf(kind, first, deployment, service.number);
    const seats = new SeatTable(AGENT, prepare);
    service.plan = seats;
    if (earlyMs > 0) await sleep(earlyMs);
    const joins = new JoinTable(seats, this.#budget, () => this.#order++, this.#pool);
    const epoch: Epoch = {
      ...{ term: 1, deployment, epoch: service.number, seats, joins, committed: true, released: false },
      stats: seats.seats.map(() => ({ framesRun: 0, runMs: 0 })),
      sessions: new Map(seats.seats.map(({ slice }) => [slice, this.#session])),
    };
    if (before !== undefined) {
      this.#released.add(before);
      before.released = true;
      before.joins.clear();
      this.#runner.purge();
      this.#lanes.get(AGENT)?.purge();
    }
    service.epoch = epoch;
    this.figures.epochs++;
    this.#inbox.prepared(epoch);
  }

  /** Takes its inputs away to where nobody sees them, as a worker does, and looks at them when it has had them for a while. */
  readonly #session: Session = {
    inputs: [],
    outputs: [],
    warmUp: async () => undefined,
    dispose: async () => undefined,
    run: async (inputs, { buffers = this.#pool } = {}) => {
      const known = this.#frameOf.get(inputs);
      const [x] = Object.values(inputs);
      if (known === undefined || x === undefined) throw new Error('a run of inputs that never were ready');
      const { service, frame } = known;
      const bytes = structuredClone(x.bytes, { transfer: [x.bytes.buffer as ArrayBuffer] });
      const into = buffers.take(bytes.length);
      const place = structuredClone(into, { transfer: [into.buffer as ArrayBuffer] });
      if (this.#below(4) === 0) await sleep(this.#below(4));
      else await new Promise((resolve) => setImmediate(resolve));
      const what = `an input of ${service.kind.name}, frame ${frame.frame} attempt ${frame.attempt}`;
      if (!same(bytes, contents(service.kind, frame.frame, frame.attempt))) this.#wrong(`${what} holds other bytes`);
      place.set(bytes);
      buffers.give(bytes);
      this.figures.runs++;
      return { outputs: { y: { dtype: x.dtype, dims: x.dims, bytes: place } satisfies Tensor }, runMs: 1 };
    },
  };

  // ---- what comes out --------------------------------------------------------------------------------------------------------

  /** At the next agent. */
  #came(raw: SegmentReader, payloadBytes: number): void {
    const { header, data } = decodeActivation(raw.segments);
    const service = this.#services.find(({ deployment }) => deployment === header.deployment);
    if (service === undefined) return;
    const { frame, attempt } = header;
    const bytes = new Uint8Array(data.bytesLeft);
    data.copyTo(bytes, 0, bytes.length);
    data.discard();
    if (!same(bytes, contents(service.kind, frame, attempt))) {
      this.#wrong(`an output of ${service.kind.name}, frame ${frame} attempt ${attempt}, holds other bytes`);
    }
    const flight = service.flights.get(frame);
    if (flight?.attempt !== attempt) this.figures.late++;
    else {
      service.flights.delete(frame);
      this.figures.frames++;
      this.figures.bytes += payloadBytes;
    }
  }

  /** Of what comes beside the lane: read later, as by a disk. */
  async #chunk(data: SegmentReader, size: number): Promise<void> {
    const views = data.rest;
    await sleep(this.#below(8));
    let at = 0;
    for (const view of views)
      for (const byte of view) if (byte !== ((size + at++ * 13) & 0xff)) return this.#wrong('a chunk beside the lane holds other bytes');
    if (at !== size) this.#wrong('a chunk beside the lane is too short');
    data.discard();
    this.figures.blobs++;
  }

  // ---- what is done to it ----------------------------------------------------------------------------------------------------

  #lowWater(service: Service): number {
    return Math.min(service.next, ...service.flights.keys());
  }

  #send(service: Service, flight: Flight): void {
    const { plan, kind, deployment, number: epoch } = service;
    const { frame, attempt } = flight;
    flight.sentMs = performance.now();
    const whole = contents(kind, frame, attempt);
    const into = plan.wires.map((_, w) => w).filter((w) => plan.ends(w).wire.toStage === 1);
    const missing = kind.coded === true && this.#below(2) === 0 ? this.#below(into.length) : -1;
    for (const w of into) {
      if (w === missing) continue;
      const { dtype, dims, wire } = plan.ends(w);
      const header = {
        deployment,
        term: 1,
        epoch,
        frame,
        attempt,
        route: ROUTE,
        wire: w,
        lowWater: Math.min(frame, this.#lowWater(service)),
        remainingMs: 5000,
        dtype,
        dims,
      };
      const bytes = boxOf(whole, kind, wire.box, kind.coded === true && w === into.at(-1));
      const { message } = encodeBox(header, wire.encoding, bytes, wire.box, wire.box);
      const lanes = this.#lanes.get(plan.producer(w, ROUTE));
      const wanted = () => service.flights.get(frame)?.attempt === attempt;
      const times = this.#below(20) === 0 ? 2 : 1;
      if (times === 2) this.figures.twice++;
      for (let i = 0; i < times; i++) lanes?.send(AGENT, this.#topics.activation(AGENT), message, { wanted }).catch(() => undefined);
    }
  }

  #cancel(service: Service, flight: Flight): void {
    service.flights.delete(flight.frame);
    this.figures.cancelled++;
    const cancel = { deployment: service.deployment, term: 1, epoch: service.number, frame: flight.frame, attempt: flight.attempt };
    const lanes = this.#lanes.get(DISPATCHER);
    lanes?.send(AGENT, this.#topics.cancel(AGENT).name, [encode('Cancel', cancel)], { urgent: true }).catch(() => undefined);
  }

  #turn(): void {
    for (const service of this.#services) {
      if (service.flights.size < 3 && this.#below(2) === 0) {
        const flight = { frame: service.next++, attempt: 1, sentMs: 0 };
        service.flights.set(flight.frame, flight);
        this.#send(service, flight);
      }
      for (const flight of service.flights.values()) {
        const waitedMs = performance.now() - flight.sentMs;
        if (this.#below(100) === 0) this.#cancel(service, flight);
        else if (waitedMs > AGAIN_MS * 2 ** flight.attempt || this.#below(150) === 0) {
          flight.attempt++;
          this.figures.again++;
          this.#send(service, flight);
        }
      }
    }
    const side = this.#side;
    if (side?.state === 'up' && this.#below(3) === 0) side.send(this.#topics.blobRequest.name, [Uint8Array.of(1)]).catch(() => undefined);
  }

  /** Breaks the connections to one of us, when something came on them since the last time: on a busy machine nothing would otherwise. */
  #cut(): void {
    const which = this.#below(this.#proxies.length);
    const came = [this.figures.runs, this.figures.frames, this.figures.blobs][which] ?? 0;
    if (came === this.#cameOn[which]) return;
    this.#cameOn[which] = came;
    this.#proxies[which]?.cut();
    this.figures.cuts++;
  }

  async run(): Promise<SoakFigures> {
    const { seconds, cutMs = 150 } = this.#o;
    const untilMs = performance.now() + 1000 * seconds;
    let cutAtMs = performance.now() + cutMs;
    let epochAtMs = performance.now() + 100;
    let runs = 0;
    // On a busy machine until it has done something at all.
    const isIdle = () => Math.min(this.figures.frames, this.figures.adopted, this.figures.blobs, this.figures.cancelled) === 0;
    const busyMs = untilMs + MOST_BUSY_MS;
    while (this.figures.wrong.length === 0 && performance.now() < (isIdle() ? busyMs : untilMs)) {
      this.#turn();
      const now = performance.now();
      if (cutMs > 0 && now > cutAtMs) {
        this.#cut();
        cutAtMs = now + 2 * this.#o.random() * cutMs;
      }
      if (now > epochAtMs && this.figures.runs > runs) {
        runs = this.figures.runs;
        const service = this.#services[this.#below(this.#services.length)];
        if (service !== undefined) this.#track(this.#prepare(service, this.#below(30)));
        epochAtMs = now + 200;
      }
      for (const service of this.#services) service.epoch?.joins.expire(now);
      this.#inbox.expireEarly();
      await new Promise((resolve) => (this.#below(3) === 0 ? setTimeout(resolve, 1) : setImmediate(resolve)));
    }
    return this.figures;
  }

  /** Everything is let go: what is counted then must be nothing. */
  async stop(): Promise<void> {
    for (const service of this.#services) await this.#prepare(service, 0);
    for (const service of this.#services) service.epoch?.joins.clear();
    await this.#runner.stop();
    this.#side?.close();
    await Promise.all([...this.#lanes.values()].map((lanes) => lanes.stop()));
    await this.#halting?.stop();
    await Promise.all(this.#proxies.map((proxy) => proxy.stop()));
    await this.#forwarder.settled();
    await Promise.all(this.#busy);
    if (this.#budget.usedBytes !== 0) this.#wrong(`${this.#budget.usedBytes} bytes of frames are counted that are not there`);
    for (const what of [...this.#pool.wrong, ...this.#theirs.wrong]) this.#wrong(`memory was ${what}`);
  }
}

function soakLane(id: string): LanesOptions {
  return { id, host: '127.0.0.1', cluster: 'soak', connectTimeoutMs: 5000, keepaliveMs: 1000 };
}

/** In front of `target`: reads nothing for up to 300 ms now and then. */
async function startHalting(target: number, below: (n: number) => number) {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect({ port: target, host: '127.0.0.1' });
    const timer = setInterval(() => {
      if (below(3) > 0) return;
      near.pause();
      setTimeout(() => near.resume(), below(300));
    }, 100);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined);
      one.on('close', () => {
        clearInterval(timer);
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  const port = await listen(server, '127.0.0.1', 0);
  const stop = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  return { port, stop };
}

/** Runs it, lets everything go, and says what it did and what was wrong. */
export async function soak(options: SoakOptions): Promise<SoakFigures> {
  const pool = new TellingPool(IDLE_BYTES);
  let world: Soak | undefined;
  const own = createLanes({
    ...soakLane(AGENT),
    buffers: pool,
    ...options.lanes?.(AGENT),
    onRefused: (_topic, error) => world?.refusedHere(error),
  });
  world = new Soak(options, own, pool);
  await world.start();
  await world.run();
  await world.stop();
  return world.figures;
}
