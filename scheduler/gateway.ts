/**
 * The gateway: the machine that decides. This file composes broker (its own, or one outside), bus, lanes, dispatcher, scheduler and blob
 * server, and owns their lives; start reads from top to bottom, stop undoes it.
 */
import { mkdir } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { BufferPool } from '../broker/buffers.js';
import type { Bus } from '../broker/bus.js';
import { cpuLimit } from '../broker/control-groups.js';
import type { Identity } from '../broker/credentials/credentials.js';
import { Gatehouse } from '../broker/credentials/gatehouse.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Lanes } from '../broker/lanes/lane.js';
import { createLanes } from '../broker/lanes/lanes.js';
import { checkLink } from '../broker/link-bounds.js';
import { LinkProbe } from '../broker/link-probe.js';
import { lockDirectory } from '../broker/lock.js';
import type { PeerEntry, StatusReport } from '../broker/messages.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { publicUrl } from '../broker/public-url.js';
import { Refusals } from '../broker/refusals.js';
import { Repetition } from '../broker/repetition.js';
import { removeLeftovers } from '../broker/sealed-file.js';
import { type BrokerServer, startBroker } from '../broker/server.js';
import { DISPATCHER, NAME_PATTERN, SCHEDULER, topicsOf } from '../broker/topics.js';
import type { Trust } from '../broker/trust.js';
import { signOrder } from '../broker/update-order.js';
import type { Engine } from '../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../models/engine/onnxruntime.js';
import { announcerOf, saidToJoiners } from './announcement.js';
import { BlobServer } from './blob-server.js';
import { claimFolder } from './cluster-file.js';
import { Dispatcher } from './dispatcher.js';
import { libraryDirectories, ModelLibrary } from './model-library.js';
import type { ModelSource } from './model-source.js';
import { blobsOf } from './plan-builder.js';
import type { Link, Links } from './planners/problem.js';
import { Problems } from './problems.js';
import { Scheduler, type SchedulerOptions } from './scheduler.js';
import { keepToOwner, prepareFolders, removeDamaged, removeFiles } from './slice-files.js';
import { DeploymentFiles } from './state.js';
import { nextTerm } from './term.js';
import { UploadStore } from './upload-store.js';
import { Uploads } from './uploads.js';

export interface GatewayOptions {
  readonly cluster: string;
  /** Folder for the term, models and slices; made when missing. One gateway a folder. */
  readonly stateDirectory: string;
  /** A broker of our own on this address (port 0 = any free one), or the URL of one outside. */
  readonly broker: { readonly host?: string; readonly port: number } | { readonly url: string };
  /** TLS with these credentials on the broker and on lanes, rights by acl.ts, signed commands. Default: everything is plain, and anybody on the network may join. */
  readonly trust?: Trust;
  /** Address of the dispatcher's listener for direct lanes; default `0.0.0.0`. */
  readonly laneHost?: string;
  /** Default 0 = any free port. */
  readonly lanePort?: number;
  /** Addresses announced to agents and clients; default: those of the network interfaces. */
  readonly addresses?: readonly string[];
  /** What planners assume of links that are not measured; default 1 Gbit/s, 1 ms. */
  readonly link?: Partial<Link>;
  /** All machines share one medium of this speed, such as Wi-Fi, bytes/s; default: each has a link of its own. */
  readonly sharedBytesPerSecond?: number;
  /** Measure links before plans use them; default true. */
  readonly measureLinks?: boolean;
  /** Make the gateway known on the local network (mDNS); default: it is not. */
  readonly announce?: { readonly softwareVersion: string };
  /** When an agent counts as lost, and how those that flap are held back. */
  readonly membership?: SchedulerOptions['membership'];
  /** Certificates: machines join on this address and port (default `0.0.0.0`; 0 = any free one). Default: nobody needs any. */
  readonly gatehouse?: { readonly host?: string; readonly port: number };
  /** See `SchedulerOptions`. */
  readonly holdPlans?: boolean;
  /** See `RepairsOptions`. */
  readonly standbyBytes?: number;
  readonly createEngine?: () => Promise<Engine>;
  /** On a broker outside: how long another scheduler of the cluster has time to answer; default 1,000 ms. */
  readonly rivalMs?: number;
  /** Bytes of models that clients have sent, together; default 4 GB. */
  readonly uploadLimitBytes?: number;
  /** Tests give a small fake. */
  readonly source?: ModelSource;
  /** Lines for people. */
  readonly log?: (line: string) => void;
}

/** 1 Gbit/s as TCP payload, through a switch. */
const USUAL_LINK: Link = { bytesPerSecond: 110e6, latencyMs: 1 };
/**
 * CPU of the gateway's process for bytes of inputs: received from a client, kept where they were read, sent to an agent. And for each frame besides: taking it in, two messages there
 * and two back, acknowledgements. `npm run bench -- messages --only gateway` on a 2-core x86-64 machine, all threads, less what it takes with nothing to do: at 20 frames a second, as
 * agents that compute take them, 2.01 ms for frames of 13 KB, 1.87 for 602 and 2.66 for 2,409 KB; one after another 0.76, 0.76 and 1.83. Bytes are of the steeper line through these (0.46 ms a MB), the
 * rest of the higher one (1.8 ms), less the two messages that the cost model counts by itself.
 */
const GATEWAY_BYTES_PER_SECOND = 2.2e9;
const GATEWAY_FRAME_MS = 1.6;
/** Of memory that frames came in, what waits for the next ones at most. */
const IDLE_FRAME_BYTES = 16 * 2 ** 20;
const UPLOAD_LIMIT_BYTES = 4e9;

export class Gateway {
  readonly #o: GatewayOptions;
  /** Undo of what start did, newest last. */
  readonly #undo: (() => Promise<void> | void)[] = [];
  #gatehouse: Gatehouse | undefined;
  #broker: BrokerServer | undefined;
  #bus: Bus | undefined;
  #lanes: Lanes | undefined;
  #scheduler: Scheduler | undefined;
  #stopping: Promise<void> | undefined;
  #settleClosed: (error: ChairError | undefined) => void = () => undefined;
  /** Resolves when the gateway has stopped: with what ended it, or undefined when it was asked to. */
  readonly closed: Promise<ChairError | undefined>;

  constructor(options: GatewayOptions) {
    this.#o = options;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
  }

  /** Throws AGENT_NAME_INVALID (cluster), CLUSTER_TAKEN, CLUSTER_WRONG (the state is of another one), PORT_IN_USE, BROKER_UNREACHABLE; then nothing is left running. */
  async start(): Promise<void> {
    if (!NAME_PATTERN.test(this.#o.cluster)) {
      throw new ChairError('AGENT_NAME_INVALID', 'a cluster cannot have this name', { came: `'${this.#o.cluster}'` });
    }
    try {
      await this.#open();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Idempotent; leaves no timer, socket, file or worker. */
  stop(): Promise<void> {
    return this.#end(undefined);
  }

  /** For agents and clients on this machine. */
  get brokerUrl(): string {
    return this.#broker?.url ?? ('url' in this.#o.broker ? this.#o.broker.url : '');
  }

  get lanePort(): number {
    return this.#lanes?.port ?? 0;
  }

  /** What joining and revoking goes through; undefined when nobody needs certificates. */
  get gatehouse(): Gatehouse | undefined {
    return this.#gatehouse;
  }

  /** It reaches the broker that it runs itself; of one outside it is not the gateway's fault when that is gone. */
  get serves(): boolean {
    return this.#scheduler !== undefined && (this.#broker === undefined || this.#bus?.connected === true);
  }

  status(): StatusReport {
    if (this.#scheduler === undefined) throw new ChairError('STOPPED', 'the gateway does not run');
    return this.#scheduler.status();
  }

  async #open(): Promise<void> {
    const { cluster, stateDirectory, broker, log } = this.#o;
    const said = log === undefined ? {} : { log };
    const topics = topicsOf(cluster);
    const directories = libraryDirectories(stateDirectory);
    await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
    // Before anything is touched: another gateway may be serving slices from there.
    const unlock = await lockDirectory(stateDirectory, {
      code: 'CLUSTER_TAKEN',
      what: 'the state folder',
      expected: 'one gateway or scheduler per folder',
      todo: 'Stop that process, or give this one another --directory.',
    });
    await this.#own({ stop: unlock });
    await removeLeftovers(stateDirectory);
    await claimFolder(stateDirectory, cluster);
    await keepToOwner(stateDirectory, (line) => log?.(line));
    const gatehouse = await this.#openGatehouse();
    const trust = this.#trust;
    const trusted = trust === undefined ? {} : { trust };
    const problems = new Problems();
    const files = await this.#own(new DeploymentFiles({ directory: join(stateDirectory, 'deployments'), problems, ...said }));
    const saved = await files.load();
    await prepareFolders(directories, new Set(saved.flatMap(({ plan }) => blobsOf(plan))));

    if (!('url' in broker)) this.#broker = await this.#own(await startBroker({ ...broker, ...trusted, ...said }));
    this.#bus = await this.#own(await connectBus({ url: this.brokerUrl, id: SCHEDULER, ...trusted }));
    const { laneHost = '0.0.0.0', lanePort = 0 } = this.#o;
    const repetition = new Repetition((line) => log?.(line));
    const refusals = new Refusals();
    const refused = (topic: string, error: Error): void => {
      refusals.count(toChairError(error).code, `${topic}: ${error.message}`);
      repetition.say(topic, `refused a message on ${topic}: ${error.message}`);
    };
    this.#undo.push(this.#bus.onRefused(refused));
    const buffers = new BufferPool(IDLE_FRAME_BYTES);
    const lanes = await this.#own(
      createLanes({
        ...trusted,
        admits: whyNotClient,
        id: DISPATCHER,
        cluster,
        bus: this.#bus,
        host: laneHost,
        port: lanePort,
        buffers,
        onRefused: refused,
      }),
    );
    this.#lanes = lanes;

    const dispatcher = new Dispatcher({
      bus: this.#bus,
      lanes,
      topics,
      buffers,
      onDrained: (deployment, epoch) => this.#scheduler?.drained(deployment, epoch),
      onStoodStill: (ms) => this.#scheduler?.stoodStill(ms),
      refusals,
      onTrouble: (trouble) => this.#scheduler?.trouble(trouble),
      onRefused: (error) => refused('a lane', error),
    });
    const store = await UploadStore.open({
      directory: join(stateDirectory, 'uploads'),
      limitBytes: this.#o.uploadLimitBytes ?? UPLOAD_LIMIT_BYTES,
      inUse: () => this.#scheduler?.modelsInUse() ?? [],
    });
    const uploads = new Uploads({ bus: this.#bus, topics, store, ...said });
    const createEngine = this.#o.createEngine ?? (() => createOnnxRuntimeEngine());
    const source = this.#o.source ?? (await this.#own(new ModelLibrary({ ...directories, createEngine })));
    // Agents may not come back, and then frames wait for a plan.
    if (saved.length > 0 && source instanceof ModelLibrary) source.warm();
    const probe = await this.#own(new LinkProbe({ name: DISPATCHER, lanes, topics: () => topics, nowMs: () => performance.now() }));
    probe.start();
    const scheduler = new Scheduler({
      cluster,
      bus: this.#bus,
      topics,
      dispatcher,
      source: uploads.source(source),
      offer: (offer) => uploads.offer(offer),
      updates: {
        sign: gatehouse === undefined ? undefined : (facts) => signOrder(facts, gatehouse.authority.source.current),
        lend: async (sha256) => {
          const { path, release } = await store.hold(sha256);
          const giveBack = blobs.lend(sha256, path);
          return () => {
            giveBack();
            release();
          };
        },
      },
      profileDirectory: join(stateDirectory, 'profiles'),
      links: this.#links(),
      holdPlans: this.#o.holdPlans ?? false,
      ...(this.#o.standbyBytes === undefined ? {} : { standbyBytes: this.#o.standbyBytes }),
      ...(this.#o.measureLinks === false ? {} : { probe, lanes: () => lanes.health() }),
      dispatcherPeer: () => this.#dispatcherPeer(),
      onPeers: (peers) => lanes.setPeers(peers),
      nextTerm: (atLeast) => nextTerm(stateDirectory, atLeast, (error) => problems.set('term', error.message)),
      problems,
      files,
      linksFile: join(stateDirectory, 'links'),
      drainsFile: join(stateDirectory, 'drains'),
      correctionsFile: join(stateDirectory, 'corrections'),
      removeDamaged: (blobs) => removeDamaged(directories.storeDirectory, blobs),
      clean: async (slices, idle) => {
        await removeFiles(directories.storeDirectory, slices);
        if (idle) await removeFiles(directories.workDirectory, new Set());
      },
      refusals,
      ...(gatehouse === undefined ? {} : { gatehouse }),
      membership: this.#o.membership,
      sharedBroker: 'url' in broker,
      ...(this.#o.rivalMs === undefined ? {} : { rivalMs: this.#o.rivalMs }),
      ...trusted,
      onReplaced: (error) => {
        log?.(`${error.code}: ${error.message}`);
        void this.#end(error);
      },
      ...said,
    });
    this.#scheduler = scheduler;
    if (gatehouse !== undefined) {
      this.#undo.push(gatehouse.authority.onRevoked(({ role, name }) => void (role === 'agent' && scheduler.revoked(name))));
    }
    this.#undo.push(lanes.onPeer((agent, lane, why) => scheduler.ownLane(agent, lane, why)));
    const blobs = new BlobServer({ bus: this.#bus, lanes, topics, directory: directories.storeDirectory, ...said });

    // Before anything here answers anybody: another scheduler may be at work. Before frames come: those of deployments of before are taken.
    await scheduler.claim(Math.max(0, ...saved.map(({ plan }) => plan.term)));
    // Agents that run since before this gateway did may still hold lanes with those.
    for (const { name, role, state } of gatehouse?.authority.members() ?? [])
      if ((role === 'agent' || role === '') && state === 'revoked') scheduler.revoked(name);
    scheduler.restore(saved);
    await (await this.#own(dispatcher)).start();
    await lanes.start();
    await (await this.#own(blobs)).start();
    await (await this.#own(uploads)).start();
    await (await this.#own(scheduler)).start();
    await this.#announce();
    log?.(`gateway of cluster '${cluster}': broker ${publicUrl(this.brokerUrl)}, dispatcher port ${lanes.port}, term ${scheduler.term}`);
  }

  /** By whose certificates everybody here is judged; undefined: by nobody's. */
  get #trust(): Trust | undefined {
    return this.#o.trust ?? this.#gatehouse?.authority;
  }

  /** Before the broker, which asks it who may come; closed after it. */
  async #openGatehouse(): Promise<Gatehouse | undefined> {
    const { cluster, stateDirectory, gatehouse: where, log } = this.#o;
    if (where === undefined) return undefined;
    const directory = join(stateDirectory, 'credentials');
    const { broker } = this.#o;
    const at = { ...where, broker: () => saidToJoiners('url' in broker ? broker : { port: this.#broker?.port ?? broker.port }) };
    this.#gatehouse = await this.#own(await Gatehouse.open({ cluster, directory, ...at, ...(log === undefined ? {} : { log }) }));
    return this.#gatehouse;
  }

  /** Last of all: whoever finds the gateway is served. */
  async #announce(): Promise<void> {
    const { cluster, announce, broker, log } = this.#o;
    if (announce === undefined) return;
    const encrypted = this.#trust !== undefined;
    const where = 'url' in broker ? broker : { host: broker.host ?? '0.0.0.0', port: this.#broker?.port ?? 0, encrypted };
    const gatehouse = this.#gatehouse === undefined ? {} : { enrolmentPort: this.#gatehouse.port };
    const announcer = await announcerOf({ cluster, where, ...gatehouse, ...announce, ...(log === undefined ? {} : { log }) });
    if (announcer !== undefined) await (await this.#own(announcer)).start();
  }

  #end(why: ChairError | undefined): Promise<void> {
    this.#stopping ??= this.#close().finally(() => this.#settleClosed(why));
    return this.#stopping;
  }

  async #close(): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) await undo();
  }

  /** From now on stop also stops this; at once, when stop was called while it was made. */
  async #own<T extends { stop(): Promise<void> }>(part: T): Promise<T> {
    this.#undo.push(() => part.stop());
    if (this.#stopping !== undefined) {
      await part.stop();
      throw new ChairError('STOPPED', 'the gateway was stopped while it started');
    }
    return part;
  }

  #links(): Links {
    const usual = { ...USUAL_LINK, ...this.#o.link };
    checkLink("the gateway's assumed link", usual);
    const { sharedBytesPerSecond } = this.#o;
    if (sharedBytesPerSecond !== undefined)
      checkLink("the gateway's shared medium", { bytesPerSecond: sharedBytesPerSecond, latencyMs: 0 });
    const quota = Math.min(1, cpuLimit() || 1);
    return {
      usual,
      gatewayCopyBytesPerSecond: GATEWAY_BYTES_PER_SECOND * quota,
      gatewayFrameMs: GATEWAY_FRAME_MS / quota,
      ...(sharedBytesPerSecond === undefined ? {} : { sharedBytesPerSecond }),
      between: new Map(),
    };
  }

  #dispatcherPeer(): PeerEntry {
    return {
      agent: DISPATCHER,
      addresses: this.#o.addresses ?? reachableAddresses(this.#o.laneHost ?? '0.0.0.0'),
      lanePort: this.lanePort,
    };
  }
}

/** Who may come to the dispatcher's lane, besides those it knows: operators with frames, agents that join. '' or why not. */
function whyNotClient({ role, name }: Identity): string {
  return role === 'operator' || role === 'agent' ? '' : `${role} ${name} sends no frames`;
}

/** Bridges of containers and virtual machines: nobody outside of this machine reaches their addresses. */
const VIRTUAL = /^(docker|br-|veth|virbr|cni|podman)/;

/** Where others find a listener on `host`: the host itself, or for "all interfaces" the addresses of those. */
function reachableAddresses(host: string): string[] {
  if (host !== '0.0.0.0' && host !== '::') return [host];
  const all = Object.entries(networkInterfaces()).flatMap(([name, list]) => (VIRTUAL.test(name) ? [] : (list ?? [])));
  const outside = all.filter((a) => !a.internal && a.family === 'IPv4').map((a) => a.address);
  return outside.length > 0 ? outside.slice(0, 16) : ['127.0.0.1'];
}
