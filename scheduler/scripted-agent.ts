/**
 * For tests: a process that speaks the agent's side of the protocol and computes one thing. Each block of a scripted model is y = 2 x + 1 on
 * every element, whatever the cut; how many blocks a slice has stands in its name. (The real agent lives in node-agent/, which
 * scheduler/ must not import; both meet in scripts/e2e.)
 */
import { randomBytes } from 'node:crypto';
import { decodeActivation, encodeBox, scatter } from '../broker/activation.js';
import type { Bus } from '../broker/bus.js';
import { ChairError, type ErrorCode, toChairError } from '../broker/errors.js';
import type { LaneMessage, Lanes } from '../broker/lanes/lane.js';
import { createLanes } from '../broker/lanes/lanes.js';
import { LinkProbe } from '../broker/link-probe.js';
import type { ActivationHeader, Command, Hello, LinkMeasurement, Prepare, Standing } from '../broker/messages.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { type Port, SINK } from '../broker/plan.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import { allocTensor, boxDims, copyBox, type Tensor } from '../broker/tensor.js';
import { DISPATCHER, type Topics, topicsOf } from '../broker/topics.js';
import type { Trust } from '../broker/trust.js';
import type { LoadedModel, ModelSource } from './model-source.js';
import { chain } from './planners/chain-model.js';
import { healthOf, helloOf } from './simulate/said.js';

export const ROWS = 12;

/** `macs` and `weightBytes` are each block's. */
interface ScriptedModel {
  readonly macs?: number;
  readonly weightBytes?: number;
  readonly verify?: () => Promise<number>;
}

/** A model of equal blocks without a file; `parseCut` takes kind:parts. */
export function scriptedSource(blocks = 3, options: ScriptedModel = {}): ModelSource {
  const { macs = 1e9, weightBytes = 1e6 } = options;
  const facts = chain(new Array(blocks).fill({ macs, weightBytes, rows: ROWS }), ROWS);
  const whole = facts.cut([{ nodes: [0, blocks], cut: 'whole', shares: [1] }]);
  const { inputs, outputs } = 'refused' in whole ? { inputs: [], outputs: [] } : whole;
  const model: LoadedModel = {
    sha256: 'f'.repeat(64),
    inputs,
    outputs,
    facts,
    write: async ({ cut }) => ({
      cut,
      slices: cut.stages.map(({ spec, parts }) => parts.map(() => sliceOf(...spec.nodes))),
    }),
    verify: options.verify ?? (async () => 0),
    meter: async () => {
      throw new ChairError('INTERNAL', 'the scripted model has no slices to measure');
    },
  };
  return {
    load: async ({ model: path }) => {
      if (path !== 'scripted') throw new ChairError('MODEL_NOT_FOUND', `no model ${path}`);
      return model;
    },
    frames: async () => [],
    parseCut: (text) => {
      const [kind = '', parts = ''] = text.split(':');
      if (!(Number(parts) >= 1)) throw new ChairError('CUT_INVALID', `no cut: ${text}`);
      return { kind, parts: Number(parts) };
    },
  };
}

/** Its name says where it begins and how many blocks it has. */
function sliceOf(start: number, end: number) {
  const blocks = end - start;
  const graph = { sha256: String(1000 * start + blocks).padStart(64, '0'), sizeBytes: 100 };
  return { graph, blobs: [], macs: blocks * 1e9, weightBytes: 1e6, activationBytes: 1e5 };
}

/** What the scripted model computes. */
export function scriptedAnswer(input: Tensor, blocks = 3): Float32Array {
  const values = Float32Array.from(new Float32Array(input.bytes.buffer, input.bytes.byteOffset, input.bytes.length / 4));
  for (let b = 0; b < blocks; b++) for (let i = 0; i < values.length; i++) values[i] = 2 * (values[i] ?? 0) + 1;
  return values;
}

function trusted({ trust }: ScriptedOptions): { readonly trust?: Trust } {
  return trust === undefined ? {} : { trust };
}

export interface ScriptedOptions {
  readonly brokerUrl: string;
  readonly cluster: string;
  readonly name: string;
  /** TLS with these credentials; default: plain. */
  readonly trust?: Trust;
  readonly hello?: Partial<Hello>;
  readonly runMs?: number;
  /** Its first health message comes only then; default: at once. */
  readonly healthy?: Promise<unknown>;
  /** Fails every prepare with this code; '' = not this one. */
  readonly prepareFails?: ErrorCode | (() => ErrorCode | '');
  /** Epochs that fit into its memory; default: any number. */
  readonly mostEpochs?: number;
  /** What it says of its link to a peer, beside what it measured; default: that. */
  readonly link?: (peer: string) => Partial<LinkMeasurement>;
  /** Called for each run; throw a ChairError to report trouble instead of a result. */
  readonly onRun?: (header: ActivationHeader) => void;
}

interface Epoch {
  readonly prepare: Prepare;
  committed: boolean;
}

export class ScriptedAgent {
  readonly nonce = randomBytes(4).toString('hex');
  readonly #o: ScriptedOptions;
  readonly #bus: Bus;
  readonly #lanes: Lanes;
  readonly #topics: Topics;
  readonly #probe: LinkProbe;
  readonly #joins = new Map<string, { tensor: Tensor; missing: Set<number> }>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly epochs = new Map<string, Epoch>();
  readonly commands: string[] = [];
  /** With whom it was last told to have nothing to do. */
  out: readonly string[] = [];
  /** By deployment: graphs of slices to have at hand. */
  readonly standby = new Map<string, readonly string[]>();
  refused = '';
  runs = 0;
  hung = false;

  static async start(options: ScriptedOptions): Promise<ScriptedAgent> {
    const bus = await connectBus({ url: options.brokerUrl, id: options.name, ...trusted(options) });
    const agent = new ScriptedAgent(options, bus);
    await agent.#start();
    return agent;
  }

  private constructor(options: ScriptedOptions, bus: Bus) {
    this.#o = options;
    this.#bus = bus;
    this.#topics = topicsOf(options.cluster);
    this.#lanes = createLanes({ ...trusted(options), id: options.name, cluster: options.cluster, bus, host: '127.0.0.1' });
    this.#probe = new LinkProbe({ name: options.name, lanes: this.#lanes, topics: () => this.#topics, nowMs: () => performance.now() });
  }

  async #start(): Promise<void> {
    const { name } = this.#o;
    this.#lanes.on(this.#topics.activation(name), (message) => this.#arrived(message));
    this.#lanes.on(this.#topics.cancel(name).name, () => undefined);
    this.#probe.start();
    await this.#lanes.start();
    await this.#bus.subscribe(this.#topics.command(name), (command) => void this.#command(command));
    await this.#bus.subscribe(this.#topics.reign, () => this.#hello());
    this.#hello();
    const begin = (): void => {
      this.#health();
      this.#timers.add(setInterval(() => this.#health(), 200));
    };
    if (this.#o.healthy === undefined) begin();
    else void this.#o.healthy.then(() => !this.hung && begin());
  }

  /** As when it is killed: no farewell of its own, the broker's Will instead. */
  async kill(): Promise<void> {
    this.hung = true;
    for (const timer of this.#timers) clearTimeout(timer);
    await this.#lanes.stop();
    await this.#bus.publish(this.#topics.gone, { agent: this.#o.name, nonce: this.nonce, why: 'will', connection: 0 });
    await this.#bus.stop();
  }

  async drain(): Promise<void> {
    await this.#bus.publish(this.#topics.gone, { agent: this.#o.name, nonce: this.nonce, why: 'draining', connection: 0 });
  }

  async stop(): Promise<void> {
    // A command that comes meanwhile is for nobody.
    this.hung = true;
    for (const timer of this.#timers) clearTimeout(timer);
    await this.#lanes.stop();
    await this.#bus.stop();
  }

  #hello(): void {
    if (this.hung) return;
    const scripted = { engine: 'scripted', cpu: 'scripted', fingerprint: 'scripted', probeMacsPerSecond: 1e12 };
    const where = { addresses: ['127.0.0.1'], lanePort: this.#lanes.port };
    const hello = helloOf(this.#o.name, this.nonce, { ...OUR_SCHEMAS, ...scripted, ...where, ...this.#o.hello });
    this.#bus.publish(this.#topics.hello, hello).catch(() => undefined);
  }

  #health(): void {
    if (this.hung) return;
    const seats = [...this.epochs.values()].map(({ prepare: { deployment, epoch } }) => ({
      ...{ deployment, epoch, stage: 0, replica: 0, part: 0, framesRun: this.runs, queue: 0, runMs: this.#o.runMs ?? 0 },
    }));
    const health = healthOf(this.#o.name, this.nonce, { seats });
    this.#bus.publish(this.#topics.health, health).catch(() => undefined);
  }

  async #command({ id, nonce, body }: Command): Promise<void> {
    if (nonce !== this.nonce || this.hung) return;
    this.commands.push(body.kind);
    let code = '';
    let link: LinkMeasurement | null = null;
    let standing: Standing | null = null;
    if (body.kind === 'prepare') {
      const { prepareFails = '' } = this.#o;
      code = typeof prepareFails === 'function' ? prepareFails() : prepareFails;
      if (code === '' && this.epochs.size >= (this.#o.mostEpochs ?? Number.POSITIVE_INFINITY)) code = 'AGENT_OUT_OF_MEMORY';
      if (code === '') this.epochs.set(`${body.prepare.deployment} ${body.prepare.epoch}`, { prepare: body.prepare, committed: false });
      this.#lanes.setPeers(body.prepare.peers);
    } else if (body.kind === 'commit') {
      const epoch = this.epochs.get(`${body.commit.deployment} ${body.commit.epoch}`);
      if (epoch !== undefined) epoch.committed = true;
    } else if (body.kind === 'release') this.epochs.delete(`${body.release.deployment} ${body.release.epoch}`);
    else if (body.kind === 'peers') this.out = body.peers.out;
    else if (body.kind === 'measure') {
      const { peer, ...budget } = body.measure;
      this.#lanes.setPeers([peer]);
      link = { ...(await this.#probe.measure(peer.agent, budget)), ...this.#o.link?.(peer.agent) };
    } else if (body.kind === 'standby') {
      standing = { loaded: body.standby.slices.map(({ graph }) => graph.sha256), stored: [], why: '' };
      this.standby.set(body.standby.deployment, standing.loaded);
    } else if (body.kind === 'refuse') {
      this.refused = body.refuse.code;
      return;
    }
    const reply = {
      id,
      agent: this.#o.name,
      code,
      message: code === '' ? '' : 'scripted to fail',
      fetchedBytes: 0,
      loadMs: 0,
      link,
      profile: null,
      standing,
      clockUs: 1000 * performance.now(),
      trace: null,
    };
    await this.#bus.publish(this.#topics.reply, reply).catch(() => undefined);
  }

  #arrived(message: LaneMessage): void {
    if (this.hung) return;
    const { header, data } = decodeActivation(message.payload);
    const epoch = this.epochs.get(`${header.deployment} ${header.epoch}`);
    const wire = epoch?.prepare.wires[header.wire];
    const part = epoch?.prepare.stages[wire?.toStage ?? 0]?.parts[wire?.toPart ?? 0];
    const port = part?.inputs[0];
    if (epoch === undefined || !epoch.committed || wire === undefined || part === undefined || port === undefined) {
      this.#trouble(header, '', 'EPOCH_STALE', 'not prepared and committed');
      return;
    }
    const key = `${header.deployment} ${header.epoch} ${header.frame} ${header.attempt} ${wire.toStage} ${wire.toPart}`;
    const join = this.#joins.get(key) ?? {
      tensor: allocTensor(port.dtype, boxDims(port.box)),
      missing: new Set([...epoch.prepare.wires.keys()].filter((i) => sameEnd(epoch.prepare.wires[i], wire))),
    };
    this.#joins.set(key, join);
    scatter(data, header, 4, join.tensor.bytes, port.box, wire.box);
    join.missing.delete(header.wire);
    if (join.missing.size > 0) return;
    this.#joins.delete(key);
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.#run(epoch.prepare, header, join.tensor, port, wire.toStage, wire.toPart);
    }, this.#o.runMs ?? 0);
    this.#timers.add(timer);
  }

  #run(prepare: Prepare, header: ActivationHeader, input: Tensor, port: Port, stage: number, part: number): void {
    if (this.hung) return;
    const seat = prepare.stages[stage]?.parts[part];
    const out = seat?.outputs[0];
    if (seat === undefined || out === undefined) return;
    try {
      this.#o.onRun?.(header);
    } catch (error) {
      const { code, message } = toChairError(error, 'ENGINE_RUN_FAILED');
      this.#trouble(header, '', code, message);
      return;
    }
    this.runs++;
    const output = allocTensor(out.dtype, boxDims(out.box));
    copyBox(input.bytes, port.box, output.bytes, out.box, out.box, 4);
    output.bytes.set(new Uint8Array(scriptedAnswer(output, Number(seat.slice) % 1000).buffer));
    for (const [index, wire] of prepare.wires.entries()) {
      if (wire.fromStage !== stage || wire.fromPart !== part) continue;
      const to = wire.toStage === SINK ? DISPATCHER : prepare.stages[wire.toStage]?.agents[header.route[wire.toStage] ?? 0]?.[wire.toPart];
      const next = { ...header, wire: index, dims: boxDims(wire.box) };
      const { message: payload } = encodeBox(next, wire.encoding, output.bytes, out.box, wire.box);
      this.#lanes.send(to ?? '', this.#topics.activation(to ?? ''), payload).catch((error: unknown) => {
        const { code, message } = toChairError(error);
        this.#trouble(header, to ?? '', code, message);
      });
    }
  }

  #trouble(header: ActivationHeader, peer: string, code: string, message: string): void {
    const { deployment, term, epoch, frame, attempt } = header;
    const trouble = { agent: this.#o.name, deployment, term, epoch, frame, attempt, peer, code, message };
    this.#bus.publish(this.#topics.trouble, trouble).catch(() => undefined);
  }
}

function sameEnd(a: { toStage: number; toPart: number } | undefined, b: { toStage: number; toPart: number }): boolean {
  return a?.toStage === b.toStage && a.toPart === b.toPart;
}
