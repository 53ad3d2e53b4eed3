// Made by generate.ts from the .avsc files. Do not edit.
import type { Encoding, PlanStage, SliceRef, Wire } from '../plan.js';
import type { DType, TensorInfo } from '../tensor.js';

export type LaneKind = 'direct' | 'relay' | 'local' | 'down';

export interface PeerEntry {
  readonly agent: string;
  readonly addresses: readonly string[];
  readonly lanePort: number;
}

/** A row of an agent's peer table: who sends it activations or gets its own, in any plan that is in force, prepared or draining. */
export interface Neighbour {
  readonly agent: string;
  readonly addresses: readonly string[];
  readonly lanePort: number;
  /** It sends to this agent. */
  readonly before: boolean;
  /** This agent sends to it. */
  readonly after: boolean;
  /** Graph shas of the slices it is seated with. */
  readonly slices: readonly string[];
}

/** One box of one tensor on its way along one wire. `data` is last, so that the header is decoded and the data viewed. */
export interface ActivationHeader {
  readonly deployment: string;
  readonly term: number;
  readonly epoch: number;
  /** The dispatcher's admission number of the frame; grows by one per admitted frame, per deployment and term. */
  readonly frame: number;
  /** 1, 2 or 3. */
  readonly attempt: number;
  /** Replica index per stage. */
  readonly route: readonly number[];
  /** Index into the plan's wires. */
  readonly wire: number;
  /** Every frame below this number is finished: what waits for them may be dropped. */
  readonly lowWater: number;
  /** Remaining time until the frame's deadline, as the sender sees it. */
  readonly remainingMs: number;
  readonly dtype: DType;
  /** Dims of the box. */
  readonly dims: readonly number[];
  readonly encoding: Encoding;
  /** For `uint8`: value = (q - zero) * scale. */
  readonly scale: number;
  readonly zero: number;
}

/** One input tensor of a frame, client -> dispatcher. A frame with k inputs is k messages with the same (client, sequence). */
export interface SubmitHeader {
  readonly client: string;
  readonly sequence: number;
  readonly deployment: string;
  /** Remaining time the client will wait; 0 = the deployment's default. */
  readonly deadlineMs: number;
  readonly input: string;
  readonly inputCount: number;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

/** One output tensor of a finished frame, or its one error (`code` not empty; then no data). Dispatcher -> client. */
export interface ResultHeader {
  readonly client: string;
  readonly sequence: number;
  readonly code: string;
  readonly message: string;
  readonly output: string;
  readonly outputCount: number;
  readonly attempts: number;
  /** From admission to the last output, on the dispatcher's clock. */
  readonly latencyMs: number;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

/** The client has this result: the dispatcher may forget it (until then a resubmitted frame gets the stored result). */
export interface ResultAck {
  readonly client: string;
  readonly sequence: number;
}

/** Dispatcher -> agents over lanes: an attempt is not wanted any more. */
export interface Cancel {
  readonly deployment: string;
  readonly term: number;
  readonly epoch: number;
  readonly frame: number;
  /** Attempts up to and including this one. */
  readonly attempt: number;
}

/** Agent -> dispatcher: a send or a run failed for one frame. */
export interface Trouble {
  readonly agent: string;
  readonly deployment: string;
  readonly term: number;
  readonly epoch: number;
  readonly frame: number;
  readonly attempt: number;
  /** The peer that could not be reached, or '' when the run itself failed. */
  readonly peer: string;
  readonly code: string;
  readonly message: string;
}

/** Lane to lane, to measure it: `echo` wants `done`, `drain` wants `messages` fills and then `done` (or `busy`), `fill` wants nothing. */
export interface Probe {
  readonly id: string;
  readonly from: string;
  readonly kind: string;
  readonly messages: number;
  readonly messageBytes: number;
  readonly data: Uint8Array;
}

export interface Hello {
  readonly agent: string;
  /** Random per process start: tells a restart from a reconnect, and two processes of one name apart. */
  readonly nonce: string;
  readonly schemaFingerprint: string;
  readonly schemaVersion: number;
  readonly softwareVersion: string;
  /** Highest scheduler term this agent has obeyed. */
  readonly term: number;
  /** Which scheduler reigned in that term, as its commands said; '' = none so far. */
  readonly scheduler: string;
  readonly addresses: readonly string[];
  /** Port of the direct lane listener; 0 = none (relay only). */
  readonly lanePort: number;
  readonly cores: number;
  /** The machine, the same for all agents on it, however they are packed; '' = unknown. */
  readonly host: string;
  /** Cores of that machine. */
  readonly hostCores: number;
  /** Cores that control groups permit this agent; 0 = no limit. */
  readonly cpuLimit: number;
  /** How often a busy thread has its turn under that limit: the period in which it is handed out, or longer where the kernel looks at it less often; 0 = no limit, or unknown. */
  readonly cpuPeriodMs: number;
  /** Threads that one run of a slice may use. */
  readonly engineThreads: number;
  readonly memoryBytes: number;
  readonly arch: string;
  readonly engine: string;
  readonly engineVersion: string;
  /** Model of the processor or board. */
  readonly cpu: string;
  /** All that run times depend on, as one short word: agents of the same fingerprint are one class of device. */
  readonly fingerprint: string;
  /** Result of the start-up probe: multiply-accumulates per second of one 3x3 convolution; 0 = unknown. */
  readonly probeMacsPerSecond: number;
  /** And bytes of weights that one fully connected layer reads per second; 0 = unknown. */
  readonly probeBytesPerSecond: number;
  /** And the CPU of a run that computes nearly nothing, ms: how fast this processor is at what goes on around runs; 0 = unknown. */
  readonly probeSmallRunMs: number;
  readonly storeBytesFree: number;
  /** Graph shas of slices held in memory or on disk (at most 1,000). */
  readonly slices: readonly string[];
  /** Its health comes this often; silence is counted in such intervals. */
  readonly healthMs: number;
  /** Counts the connections to the broker that it gave up itself, because its address changed. */
  readonly connection: number;
  /** It has credentials: it speaks TLS on the broker and on lanes, and obeys signed commands only. */
  readonly encrypted: boolean;
}

export interface SeatHealth {
  readonly deployment: string;
  readonly epoch: number;
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  readonly framesRun: number;
  readonly queue: number;
  /** Exponentially weighted mean run time of the slice. */
  readonly runMs: number;
}

export interface LaneHealth {
  readonly peer: string;
  readonly lane: LaneKind;
  /** Why the lane is not direct; '' otherwise. */
  readonly why: string;
  readonly bytesSent: number;
  readonly messagesSent: number;
  readonly sendMs: number;
  /** Of large messages from the peer that came while no other did: the best of late, bytes/s; 0 = none yet. */
  readonly receivedBytesPerSecond: number;
  /** How many such messages. */
  readonly receivedSamples: number;
  /** Of the connection's keep-alive while nothing waited to be sent, the shortest of late; 0 = unknown. */
  readonly roundTripMs: number;
  /** Handed over to be sent, and not received yet as far as the peer says. */
  readonly waitingBytes: number;
  /** Of the last three seconds, how long bytes waited for the peer's machine to acknowledge them; 0 = they did not, or it cannot be seen. */
  readonly busyMs: number;
  /** What was acknowledged in that time, bytes/s: in the middle of a transfer, too. */
  readonly busyBytesPerSecond: number;
  /** Whose frame was not wanted any more (cancelled, over its deadline, of a released epoch) before they had left. */
  readonly messagesDropped: number;
}

/** Messages that were not acted on, for one reason. */
export interface RefusalRow {
  readonly code: string;
  readonly count: number;
  /** What was wrong with the latest one. */
  readonly latest: string;
}

/** Once a second. */
export interface Health {
  readonly agent: string;
  readonly nonce: string;
  readonly uptimeMs: number;
  /** Process CPU over the last second, 0..cores. */
  readonly cpu: number;
  readonly rssBytes: number;
  readonly anonymousBytes: number;
  readonly memoryFreeBytes: number;
  /** Celsius; 0 = not readable. */
  readonly temperature: number;
  /** What a Raspberry Pi's firmware says of power and heat, as `vcgencmd get_throttled` does (bits 0 to 3: now; 16 to 19: since it was started); -1 = not readable. */
  readonly throttled: number;
  readonly queue: number;
  readonly framesPerSecond: number;
  /** Of the runs of the last 10 s, from complete inputs to outputs: waiting and computing; 0 = there was none. */
  readonly p50Ms: number;
  readonly p95Ms: number;
  /** Connections to the broker since its start, without the first one. */
  readonly reconnects: number;
  readonly refused: number;
  /** Files on its disk that were found damaged since its start, and not used. */
  readonly damaged: number;
  /** Messages sent in another encoding than raw, and those that had to be sent raw although their wire says otherwise (values that it cannot carry). */
  readonly encodedMessages: number;
  readonly rawFallbacks: number;
  readonly seats: readonly SeatHealth[];
  readonly lanes: readonly LaneHealth[];
  /** The peer table that it holds: `version` of this term; 0 = none yet. */
  readonly peersTerm: number;
  readonly peersVersion: number;
  /** Runs that did without a part of a coded stage: it was told from the parity. */
  readonly recovered: number;
  /** What it refused since it started, by code. */
  readonly refusals: readonly RefusalRow[];
}

/** Last Will and orderly farewell. */
export interface Gone {
  readonly agent: string;
  readonly nonce: string;
  /** `will`, `stopped` or `draining` (still serving, wants its seats moved). */
  readonly why: string;
  /** As in its hello. The Will of a connection that the agent gave up itself says nothing. */
  readonly connection: number;
}

/** Scheduler -> everyone: I reign; say hello. Published on (re)connect and on term change. */
export interface Reign {
  readonly term: number;
  /** As in its commands. */
  readonly scheduler: string;
  readonly schemaFingerprint: string;
  readonly schemaVersion: number;
}

/** Agent -> scheduler, at every connection: which peers have I? The answer is a `peers` command. */
export interface PeersQuestion {
  readonly agent: string;
  readonly nonce: string;
  /** What it holds already. */
  readonly term: number;
  readonly version: number;
}

/** Everything an agent needs of a plan: its own slices, all stages (to resolve routes), wires and peers. */
export interface Prepare {
  readonly deployment: string;
  readonly epoch: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly stages: readonly PlanStage[];
  readonly wires: readonly Wire[];
  /** Only the slices this agent needs, keyed by position; look up by `graph.sha256`. */
  readonly slices: readonly SliceRef[];
  readonly peers: readonly PeerEntry[];
}

export interface Commit {
  readonly deployment: string;
  readonly epoch: number;
}

export interface Release {
  readonly deployment: string;
  readonly epoch: number;
}

export interface Peers {
  readonly version: number;
  readonly peers: readonly Neighbour[];
  /** Agents whose certificate was revoked: lanes with them end at once, whatever else names them. */
  readonly out: readonly string[];
}

/** The scheduler tells an agent that it may not join (name taken, schema too old). It should stop with this code. */
export interface Refuse {
  readonly code: string;
  readonly message: string;
}

export interface Ping {
  readonly padBytes: number;
}

/** Load this slice in a process of its own, run it on made-up inputs, and tell how long that takes and how much memory. */
export interface Profile {
  readonly slice: SliceRef;
  /** Of the engine; 0 = as it serves. */
  readonly threads: number;
  /** At most so many runs, and no more once `budgetMs` is over; three at least. */
  readonly runs: number;
  readonly budgetMs: number;
}

export interface ProfileResult {
  readonly engine: string;
  readonly engineVersion: string;
  readonly fingerprint: string;
  readonly threads: number;
  readonly loadMs: number;
  /** Of each run after the warm-up, as a seat sees it: into the engine and back. */
  readonly samplesMs: readonly number[];
  /** Resident memory of the process with an engine and no slice. */
  readonly emptyBytes: number;
  /** Peaks of resident memory above that: while loading (weights in the file cache included), and while running. */
  readonly loadPeakBytes: number;
  readonly runPeakBytes: number;
  /** The agent ran frames meanwhile, or began to prepare seats: the times are too long. */
  readonly busy: boolean;
}

/** Measure the lane to `peer`. AGENT_BUSY while frames run here, unless `evenIfBusy`. */
export interface Measure {
  readonly peer: PeerEntry;
  readonly budgetMs: number;
  /** In both directions together. */
  readonly budgetBytes: number;
  readonly evenIfBusy: boolean;
  /** Do not measure, only let the peer in: it will. */
  readonly expect: boolean;
}

/** Slices to have at hand in case that others are lost: fetched while nothing else has to be, loaded where memory is left over. The list replaces that of before, of this deployment; seats that are prepared take its memory. */
export interface Standby {
  readonly deployment: string;
  /** The most important first. */
  readonly slices: readonly SliceRef[];
  /** Not asked again within this time, the agent gives them up. */
  readonly leaseMs: number;
  /** Somebody waits for it: fetched as seats that are prepared are, before what is not urgent. */
  readonly urgent: boolean;
}

/** Change to another program: see update-order.ts for what is signed. */
export interface Update {
  readonly agent: string;
  /** Of the bundle. */
  readonly name: string;
  readonly arch: string;
  /** Of the archive, which is fetched as a blob. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** By the gateway's clock, since 1970. */
  readonly issuedMs: number;
  /** Of the gateway that orders it. */
  readonly term: number;
  /** Of the orders of that gateway since its start, from 1. */
  readonly number: number;
  /** Of the gateway that signs, PEM. */
  readonly certificate: string;
  /** Base64. */
  readonly signature: string;
}

/** The program that is on trial is well. */
export interface Confirm {
  /** Of the bundle. */
  readonly name: string;
}

/** As the trace request. */
export interface Trace {
  readonly deployment: string;
  readonly frames: number;
  readonly forMs: number;
  readonly collect: boolean;
}

/** Nobody waits for a measurement any more: its process ends at once. Idempotent; what is over or unknown is left. */
export interface StopProfile {
  /** Of the command that asked for the measurement. */
  readonly id: string;
}

export type CommandBody =
  | { readonly kind: 'prepare'; readonly prepare: Prepare }
  | { readonly kind: 'commit'; readonly commit: Commit }
  | { readonly kind: 'release'; readonly release: Release }
  | { readonly kind: 'peers'; readonly peers: Peers }
  | { readonly kind: 'refuse'; readonly refuse: Refuse }
  | { readonly kind: 'ping'; readonly ping: Ping }
  | { readonly kind: 'profile'; readonly profile: Profile }
  | { readonly kind: 'measure'; readonly measure: Measure }
  | { readonly kind: 'standby'; readonly standby: Standby }
  | { readonly kind: 'update'; readonly update: Update }
  | { readonly kind: 'confirm'; readonly confirm: Confirm }
  | { readonly kind: 'trace'; readonly trace: Trace }
  | { readonly kind: 'stopProfile'; readonly stopProfile: StopProfile };

export interface Command {
  readonly id: string;
  readonly term: number;
  /** Random per start of the scheduler: two that count their terms in folders of their own may come to the same one. */
  readonly scheduler: string;
  /** The nonce of the agent process it is meant for. */
  readonly nonce: string;
  readonly deadlineMs: number;
  readonly body: CommandBody;
  /** The scheduler's signature under the rest and the gateway's certificate, see broker/seal.ts; empty where nobody has credentials. */
  readonly seal: Uint8Array;
}

/** The lane from the measuring agent to `peer` and back. Spreads are median deviations: of the round trip in ms, of throughput as a part of it. */
export interface LinkMeasurement {
  readonly peer: string;
  readonly lane: LaneKind;
  readonly roundTripMs: number;
  readonly roundTripSpreadMs: number;
  readonly upBytesPerSecond: number;
  readonly upSpread: number;
  readonly downBytesPerSecond: number;
  readonly downSpread: number;
  /** Sent and received for it. */
  readonly bytes: number;
  readonly tookMs: number;
}

/** Graph shas of slices that an agent has at hand. */
export interface Standing {
  readonly loaded: readonly string[];
  /** On disk only, whole. */
  readonly stored: readonly string[];
  /** Why others are not; '' when there are none. */
  readonly why: string;
}

/** What one seat did for one frame, and when. */
export interface TraceSpan {
  /** receive (first box to complete inputs), wait (for the engine), compute, serialise, send (until the socket took it); frame (at the dispatcher: taken to answered). */
  readonly kind: string;
  readonly frame: number;
  readonly attempt: number;
  /** -1 = not of a seat. */
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  /** Of serialise and send: to whom; '' otherwise. */
  readonly peer: string;
  /** Of serialise and send: the stage that takes it, -2 = it is a result. Otherwise -1. */
  readonly toStage: number;
  /** Of serialise and send: the part of that stage. Otherwise 0. */
  readonly toPart: number;
  /** On the process's own monotonic clock. */
  readonly startUs: number;
  readonly durationUs: number;
  /** Received or sent; 0 otherwise. */
  readonly bytes: number;
}

export interface TraceSpans {
  readonly agent: string;
  /** Add it to times of this process to have them on the gateway's clock. 0 when the process says it itself. */
  readonly offsetUs: number;
  /** The offset is wrong by at most so much: half the shortest round trip over MQTT. */
  readonly errorUs: number;
  /** Frames that it took part in. */
  readonly frames: number;
  /** Spans that there was no room for. */
  readonly dropped: number;
  /** Why there are no spans of it; '' otherwise. */
  readonly why: string;
  readonly spans: readonly TraceSpan[];
}

/** `code` empty = done. */
export interface Reply {
  readonly id: string;
  readonly agent: string;
  readonly code: string;
  readonly message: string;
  /** For prepare: bytes fetched and load time; else 0. */
  readonly fetchedBytes: number;
  readonly loadMs: number;
  /** Of a profile command that worked; else null. */
  readonly profile: ProfileResult | null;
  /** For measure: what was found. */
  readonly link: LinkMeasurement | null;
  /** For standby: what is at hand now. */
  readonly standing: Standing | null;
  /** The agent's monotonic clock while it answered. */
  readonly clockUs: number;
  /** For trace: what was noted. */
  readonly trace: TraceSpans | null;
}

/** Agent -> scheduler, while preparing: how far it is. */
export interface Progress {
  readonly agent: string;
  readonly deployment: string;
  readonly epoch: number;
  /** `fetch`, `load`, `warm-up` or `ready`. */
  readonly step: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface BlobRequest {
  readonly agent: string;
  readonly id: string;
  readonly sha256: string;
  readonly offset: number;
  readonly length: number;
}

/** `code` empty = `data` holds the bytes at `offset`. */
export interface BlobChunk {
  readonly id: string;
  readonly sha256: string;
  readonly offset: number;
  readonly totalBytes: number;
  readonly code: string;
  readonly data: Uint8Array;
}

/** Part of a model file on its way to the gateway. `data` is of no use there unless the gateway holds exactly the bytes before `offset`. */
export interface UploadChunk {
  readonly client: string;
  /** Of the whole file. */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly offset: number;
  readonly data: Uint8Array;
}

/** Answer to every chunk. `code` not empty = the file is refused. */
export interface UploadAck {
  readonly sha256: string;
  /** The gateway holds the file's bytes up to here: where to go on. */
  readonly heldBytes: number;
  readonly code: string;
  readonly message: string;
}

/** How an image becomes the model's input; runs inside the first slice's graph. */
export interface ImageInput {
  /** Model input it feeds. */
  readonly input: string;
  /** Size of the uint8 frame that clients send: [height, width, 3], RGB. */
  readonly height: number;
  readonly width: number;
  /** `rgb` or `bgr`: what the model wants. */
  readonly order: string;
  /** value = (pixel / 255 - mean) / std, per channel in the model's order. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

export interface DeployRequest {
  readonly name: string;
  /** Path of the model file as the gateway sees it, or what the gateway answered to an offer of it. */
  readonly model: string;
  /** `input=1,3,640,640` */
  readonly shapes: readonly string[];
  readonly images: readonly ImageInput[];
  readonly objective: string;
  readonly planner: string;
  /** Manual cut such as `rows:4`; '' = the planner decides. */
  readonly cut: string;
  readonly shares: readonly number[];
  /** Only these agents; empty = all. */
  readonly agents: readonly string[];
  /** Frames in flight; 0 = the planner's choice. */
  readonly inFlight: number;
  readonly deadlineMs: number;
  /** Most that wire encodings may change an output, relative to its largest magnitude; 0 = every wire is raw. */
  readonly maxError: number;
  /** Inputs that the error is measured on: what the gateway answered to offers of files, each one Submit message. Empty = seeded random ones. */
  readonly calibration: readonly string[];
  /** Text of a plan file that takes the planner's place; '' = none. */
  readonly plan: string;
  /** How many parts of a stage cut by outputs may be missing without a frame noticing: 1 = each such stage gets a parity part. */
  readonly redundancy: number;
  /** What its demand counts against that of other deployments on the same agents; > 0. */
  readonly weight: number;
  readonly verify: boolean;
  /** Plan only: show it, deploy nothing. */
  readonly dryRun: boolean;
  /** Compare with other planners, and plan again with other devices and links: takes several times as long. */
  readonly explain: boolean;
}

export interface UndeployRequest {
  readonly name: string;
}

export interface StatusRequest {
  readonly name: string;
}

/** One file of a model. */
export interface ModelFile {
  /** Name relative to the model's folder, as the graph names its external data; of the graph itself the file's name. */
  readonly location: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** Client -> gateway: is this model there? The graph's file comes first, then its external data. */
export interface ModelOffer {
  /** Where the client has it: the gateway may see the same file there. '' = nowhere. */
  readonly path: string;
  readonly files: readonly ModelFile[];
}

/** Begin to measure a model, or tell how far it is: the same job again is joined, and ends when nobody asks any more. */
export interface ProfileRequest {
  /** Chosen by the client. */
  readonly job: string;
  readonly model: string;
  readonly shapes: readonly string[];
  readonly images: readonly ImageInput[];
  /** Only the classes of these agents, measured on these; empty = all. */
  readonly agents: readonly string[];
  /** Kinds of cut besides `whole`; empty = all that planners use. */
  readonly cuts: readonly string[];
  /** Numbers of parts; empty = as many as there are agents. */
  readonly parts: readonly number[];
  /** Engine threads; empty = as the agents serve. */
  readonly threads: readonly number[];
  readonly runs: number;
  readonly budgetMs: number;
  /** Measure again what is known already. */
  readonly fresh: boolean;
  /** Give the job up; what it measured is kept. */
  readonly cancel: boolean;
}

/** What is known of links; with `measure`, after measuring those between `agents` and with the dispatcher (empty = all). */
export interface LinksRequest {
  readonly measure: boolean;
  readonly evenIfBusy: boolean;
  readonly agents: readonly string[];
}

/** Peer tables of one agent, or of all. */
export interface PeersRequest {
  /** '' = all */
  readonly agent: string;
}

/** What a deployment is planned for from now on. It moves to another plan when there is a better one; the answer says which, and what moving takes. */
export interface AdjustRequest {
  readonly name: string;
  /** '' = as before. */
  readonly objective: string;
  /** 0 = as before. */
  readonly weight: number;
  /** Only say it. */
  readonly dryRun: boolean;
}

/** What an operator asks of the gateway's authority. */
export interface TrustRequest {
  /** `invite`, `tokens`, `revoke token`, `members`, `approve`, `revoke`, or `audit`, of which `audit done` and `audit refused` are parts. */
  readonly action: string;
  /** Of the one it is about; '' where nobody is named. */
  readonly name: string;
  /** invite: `agent`, `operator` or `viewer`. */
  readonly role: string;
  /** invite: how long the token is good for. */
  readonly ttlMs: number;
  /** invite: its join waits until it is approved. */
  readonly hold: boolean;
  /** invite: the certificate that the name has ends with the join. */
  readonly replace: boolean;
  /** approve: how the fingerprint of the key begins, '' = not compared; revoke token: how its id begins. */
  readonly key: string;
  /** revoke: for the audit log. */
  readonly why: string;
  /** audit: so many of the latest entries. */
  readonly count: number;
  /** revoke: also a name of which nothing is known. */
  readonly unknown: boolean;
}

/** Change the program of one agent to a bundle that was sent before. Answered when the agent was confirmed, or is back with its former one. */
export interface UpdateRequest {
  readonly agent: string;
  /** Of the bundle. */
  readonly name: string;
  readonly arch: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** An agent is to give its seats to others and get no new ones, while it goes on running. Answered when it holds none any more, or at once for the opposite. */
export interface DrainRequest {
  readonly agent: string;
  /** It may have seats again. */
  readonly undo: boolean;
}

/** First with `collect` false: the agents of the deployment note what becomes of the next frames. Then with true: what they noted so far. */
export interface TraceRequest {
  readonly deployment: string;
  readonly frames: number;
  /** They stop by themselves after so long. */
  readonly forMs: number;
  readonly collect: boolean;
}

export type RequestBody =
  | { readonly kind: 'deploy'; readonly deploy: DeployRequest }
  | { readonly kind: 'undeploy'; readonly undeploy: UndeployRequest }
  | { readonly kind: 'status'; readonly status: StatusRequest }
  | { readonly kind: 'where'; readonly where: StatusRequest }
  | { readonly kind: 'offer'; readonly offer: ModelOffer }
  | { readonly kind: 'profile'; readonly profile: ProfileRequest }
  | { readonly kind: 'links'; readonly links: LinksRequest }
  | { readonly kind: 'peers'; readonly peers: PeersRequest }
  | { readonly kind: 'adjust'; readonly adjust: AdjustRequest }
  | { readonly kind: 'trust'; readonly trust: TrustRequest }
  | { readonly kind: 'update'; readonly update: UpdateRequest }
  | { readonly kind: 'drain'; readonly drain: DrainRequest }
  | { readonly kind: 'trace'; readonly trace: TraceRequest };

export interface Request {
  readonly id: string;
  readonly client: string;
  readonly deadlineMs: number;
  readonly body: RequestBody;
}

export interface PlanRow {
  readonly stage: number;
  readonly cut: string;
  readonly replica: number;
  readonly part: number;
  readonly agent: string;
  readonly slice: string;
  readonly macs: number;
  readonly weightBytes: number;
  readonly predictedMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface LinkRow {
  readonly from: string;
  readonly to: string;
  /** As its wires are encoded, and as they would be raw. */
  readonly bytesPerFrame: number;
  readonly rawBytesPerFrame: number;
}

export interface MemoryRow {
  readonly agent: string;
  readonly needBytes: number;
  readonly haveBytes: number;
}

/** The wires between two stages (-1 the model's inputs, -2 its outputs), per frame and replica group, in the encoding that was chosen. */
export interface PrecisionRow {
  readonly fromStage: number;
  readonly toStage: number;
  readonly encoding: Encoding;
  readonly bytesPerFrame: number;
  readonly rawBytesPerFrame: number;
  /** Measured with these wires encoded alone; 0 for raw. */
  readonly error: number;
  /** Why not more: 'not the bottleneck', 'uint8 exceeds the budget', ...; '' when there is nothing to say. */
  readonly why: string;
}

/** What wire encodings cost in accuracy. Errors are relative to the largest magnitude of the same output, the largest over outputs and inputs tried. */
export interface PrecisionReport {
  /** As it was allowed. */
  readonly maxError: number;
  /** Measured with all of `rows` at once. */
  readonly error: number;
  /** How many inputs it was measured on, and whether these were made up. */
  readonly inputs: number;
  readonly random: boolean;
  /** One line for people. */
  readonly why: string;
  readonly rows: readonly PrecisionRow[];
}

/** One coded stage. */
export interface RedundancyRow {
  readonly stage: number;
  /** Without the parity. */
  readonly parts: number;
  /** Who holds the parity, by replica. */
  readonly agents: readonly string[];
  /** Of the parts together. */
  readonly macs: number;
  readonly parityMacs: number;
  /** Of a frame: into the parity part and out of it. */
  readonly parityBytes: number;
}

/** What coded redundancy costs and whom it covers: of a coded stage any one part may be missing. */
export interface RedundancyReport {
  /** Of the parity parts, and of what every part of a coded stage repeats. */
  readonly addedMacs: number;
  /** Of a frame: inputs to the parity parts and parities to their consumers, in so far as they leave an agent. */
  readonly addedBytes: number;
  /** Agents of which any one may be lost without a frame noticing. */
  readonly covered: readonly string[];
  /** Agents whose loss is an ordinary one: they hold a seat of a stage that is not coded. */
  readonly exposed: readonly string[];
  /** At most three lines for people. */
  readonly why: string;
  readonly rows: readonly RedundancyRow[];
}

/** A plan that was not chosen, or the one that there would be if something were different. */
export interface PlanAlternative {
  /** Of people: the planner, or what would be different. */
  readonly name: string;
  readonly planner: string;
  readonly agents: number;
  readonly latencyMs: number;
  readonly fps: number;
  /** Why there is none; '' = there is. */
  readonly refused: string;
}

export interface PlanDetails {
  /** The plan as a file that can be edited and deployed. */
  readonly file: string;
  readonly inFlight: number;
  /** Largest difference of the slices from the whole model, relative to its largest output; -1 = not verified. */
  readonly maxRelDiff: number;
  /** Both empty unless it was to be explained. */
  readonly alternatives: readonly PlanAlternative[];
  readonly changes: readonly PlanAlternative[];
}

export interface PlanReport {
  readonly deployment: string;
  readonly epoch: number;
  readonly planner: string;
  readonly why: string;
  /** What the figures stand on: measured profiles, the agents' probes, or which of them. */
  readonly basis: string;
  readonly predictedLatencyMs: number;
  readonly predictedFps: number;
  readonly seats: readonly PlanRow[];
  readonly links: readonly LinkRow[];
  readonly memory: readonly MemoryRow[];
  /** null = no error was allowed, every wire is raw. */
  readonly precision: PrecisionReport | null;
  /** null = none was asked for. */
  readonly redundancy: RedundancyReport | null;
  /** For who asked for the plan; null in a status. */
  readonly details: PlanDetails | null;
}

export interface AgentStatus {
  readonly agent: string;
  /** joining, ready, suspect, lost, stopped, draining, refused */
  readonly state: string;
  /** Why it is not ready; '' otherwise. */
  readonly why: string;
  /** How often it was lost since the scheduler knows it. */
  readonly losses: number;
  /** It is here, but was lost too often of late: it gets seats after this time; 0 = not held back. */
  readonly heldMs: number;
  readonly addresses: readonly string[];
  readonly lanePort: number;
  readonly cores: number;
  /** As in its hello. */
  readonly host: string;
  readonly hostCores: number;
  readonly cpuLimit: number;
  readonly cpuPeriodMs: number;
  readonly engineThreads: number;
  /** Measured time of real frames / predicted, as far as plans take it into account; 1 = as predicted. */
  readonly correction: number;
  readonly memoryBytes: number;
  readonly probeMacsPerSecond: number;
  readonly probeBytesPerSecond: number;
  readonly probeSmallRunMs: number;
  readonly softwareVersion: string;
  /** As in its hello. */
  readonly encrypted: boolean;
  readonly health: Health | null;
}

/** A seat of the plan in force: what its runs were predicted to take and what they take. */
export interface LiveRow {
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  readonly agent: string;
  /** As the plan was made. */
  readonly predictedMs: number;
  /** Exponentially weighted mean of real frames; 0 = none yet. */
  readonly measuredMs: number;
  readonly frames: number;
  /** What the next plan would multiply this seat's uncorrected prediction with. */
  readonly factor: number;
}

/** What follows when this one agent of the plan in force is lost, as things are now. */
export interface LossRow {
  readonly agent: string;
  /** goes-on (frames take another replica, or a parity stands in), repair (others take its seats, and have what they need on disk), fetching (as repair, but not all is on disk yet), plan (no local repair: frames wait for another plan), unknown (not worked out) */
  readonly outcome: string;
  /** Who takes its seats. */
  readonly takers: readonly string[];
  /** What the takers do not have on disk yet. */
  readonly missingBytes: number;
  /** How long the takers fetch and load, once the loss is known; 0 = all is in memory. */
  readonly pauseMs: number;
  /** Of plan and unknown. */
  readonly why: string;
}

export interface DeploymentStatus {
  readonly name: string;
  readonly model: string;
  /** restoring (from disk), planning, preparing, serving, waiting (no agents), failed, removing */
  readonly state: string;
  readonly why: string;
  readonly epoch: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly images: readonly ImageInput[];
  readonly inFlight: number;
  readonly queued: number;
  readonly completed: number;
  readonly failed: number;
  readonly reissued: number;
  /** Boxes of inputs that the dispatcher had to send raw although their wire says otherwise. */
  readonly rawFallbacks: number;
  /** Results that the dispatcher completed without a part of a coded stage. */
  readonly recovered: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly framesPerSecond: number;
  readonly plan: PlanReport | null;
  /** What the plan in force is predicted to do by what is known now: measured links, corrected times. 0 = no plan. */
  readonly expectedLatencyMs: number;
  readonly expectedFps: number;
  readonly objective: string;
  readonly weight: number;
  /** Frames that clients send per second. */
  readonly demandFps: number;
  /** What the last look for a better plan found, and why it was looked for; '' = there was none. */
  readonly outlook: string;
  /** Of each agent of the plan in force: what its loss would mean now. */
  readonly losses: readonly LossRow[];
  readonly live: readonly LiveRow[];
  readonly progress: readonly Progress[];
}

export interface EventRow {
  readonly atMs: number;
  readonly kind: string;
  readonly text: string;
}

/** One direction of a lane. */
export interface LinkStatus {
  readonly from: string;
  readonly to: string;
  /** `direct`, `relay`, ... when it was measured. */
  readonly lane: string;
  readonly bytesPerSecond: number;
  readonly latencyMs: number;
  /** Median deviation of the throughput / its median. */
  readonly spread: number;
  /** `measured`, `live`. What is not listed is assumed. */
  readonly source: string;
  readonly ageMs: number;
  /** What the last measurement was refused for, or what live traffic says against this row; '' = nothing. */
  readonly problem: string;
}

export interface StatusReport {
  readonly cluster: string;
  readonly term: number;
  /** TLS with client certificates on the broker and on lanes, signed commands. false: everything is plain, and anybody on the network may listen and join. */
  readonly encrypted: boolean;
  readonly uptimeMs: number;
  readonly dispatcherAddresses: readonly string[];
  readonly dispatcherPort: number;
  /** What an operator should know and mend: what could not be written, what was found damaged. */
  readonly problems: readonly string[];
  readonly agents: readonly AgentStatus[];
  readonly deployments: readonly DeploymentStatus[];
  /** The dispatcher's own. */
  readonly lanes: readonly LaneHealth[];
  /** The gateway's own machine: an agent of the same host shares it. '' = unknown. */
  readonly host: string;
  readonly links: readonly LinkStatus[];
  /** What the gateway refused since it started, by code; agents tell theirs in their health. */
  readonly refusals: readonly RefusalRow[];
  /** Newest last, at most 200. */
  readonly events: readonly EventRow[];
}

export interface MissingFile {
  readonly sha256: string;
  /** The gateway holds so many of its first bytes. */
  readonly heldBytes: number;
}

export interface ModelAnswer {
  /** What a deploy request calls the model; '' while files are missing. */
  readonly model: string;
  readonly missing: readonly MissingFile[];
}

/** Agents that are the same to a planner: one of them is measured. */
export interface ProfileClass {
  readonly fingerprint: string;
  /** For people: board, cores, engine. */
  readonly text: string;
  readonly agents: readonly string[];
  /** Engine threads that they serve with. */
  readonly threads: number;
  /** What a run costs however little it computes; 0 = not measured. */
  readonly runMs: number;
}

/** The largest part of nodes `[startNode, endNode)` cut so, on one class with so many engine threads. */
export interface ProfileMeasure {
  readonly fingerprint: string;
  readonly threads: number;
  /** `block`, `range` (several blocks in one slice), `model` or `run` (a slice that computes next to nothing). */
  readonly what: string;
  readonly label: string;
  readonly startNode: number;
  readonly endNode: number;
  readonly cut: string;
  readonly parts: number;
  readonly macs: number;
  readonly weightBytes: number;
  /** `measured` now, `kept` from before, or `interpolated`. */
  readonly from: string;
  readonly agent: string;
  /** Median and quartiles. */
  readonly ms: number;
  readonly lowMs: number;
  readonly highMs: number;
  readonly samplesMs: readonly number[];
  readonly loadMs: number;
  readonly loadPeakBytes: number;
  readonly runPeakBytes: number;
  readonly busy: boolean;
  /** Why there is no figure; '' = there is. */
  readonly code: string;
  readonly message: string;
}

/** What was measured against what the table says of it when it is left out. */
export interface ProfileCheck {
  readonly fingerprint: string;
  readonly threads: number;
  /** `interpolation` between numbers of parts, or `sum` of the blocks of a range. */
  readonly what: string;
  readonly label: string;
  readonly cut: string;
  readonly parts: number;
  readonly measuredMs: number;
  readonly predictedMs: number;
}

export interface ProfileReport {
  readonly job: string;
  /** `running`, `done` or `failed`; rows and checks come with the last two. */
  readonly state: string;
  readonly code: string;
  readonly message: string;
  /** sha256 of the model as it was loaded. */
  readonly model: string;
  /** Measurements. */
  readonly done: number;
  readonly total: number;
  /** What is being measured now, for people. */
  readonly current: string;
  readonly classes: readonly ProfileClass[];
  readonly rows: readonly ProfileMeasure[];
  readonly checks: readonly ProfileCheck[];
  readonly notes: readonly string[];
}

/** A neighbour as the scheduler tells it, and the lane to it as the agent sees it. */
export interface PeerRow {
  readonly agent: string;
  /** Of the neighbour; '' for the dispatcher. */
  readonly state: string;
  readonly before: boolean;
  readonly after: boolean;
  readonly addresses: readonly string[];
  readonly lanePort: number;
  /** `direct`, `relay`, `local`, `down`; '' = the agent has not said yet. */
  readonly lane: string;
  /** Why the lane is not direct; '' otherwise. */
  readonly why: string;
  /** 0 = unknown */
  readonly roundTripMs: number;
  /** Of large messages from the neighbour, the best of late; 0 = none yet. */
  readonly inBytesPerSecond: number;
  /** To the neighbour, as that one sees it. */
  readonly outBytesPerSecond: number;
  /** This and the next two: of the lane to the neighbour, see LaneHealth. */
  readonly waitingBytes: number;
  readonly busyMs: number;
  readonly busyBytesPerSecond: number;
  readonly slices: readonly string[];
}

export interface PeerTableReport {
  readonly agent: string;
  /** Grows with each change of this table, within a term. */
  readonly version: number;
  /** What the agent holds, as it says in its health; 0 = none of this term. */
  readonly heldVersion: number;
  readonly rows: readonly PeerRow[];
}

export interface PeersReport {
  readonly term: number;
  readonly tables: readonly PeerTableReport[];
}

/** A token, without its secret. */
export interface TokenRow {
  readonly id: string;
  readonly role: string;
  readonly name: string;
  /** `open`, `held`, `used`, `revoked`, `locked` or `expired`; one that is open past `expiresMs` has expired, too. */
  readonly state: string;
  /** ms since 1970, as all times here. */
  readonly createdMs: number;
  readonly expiresMs: number;
  /** When its state became what it is. */
  readonly sinceMs: number;
  /** Its join waits until it is approved. */
  readonly hold: boolean;
  /** Wrong secrets shown with it. */
  readonly failures: number;
  /** sha256 of the public key that has it, hex; '' while it is open. */
  readonly key: string;
}

/** Somebody who has joined, or may. */
export interface MemberRow {
  /** '' = not known: the name was revoked without one. */
  readonly role: string;
  readonly name: string;
  /** `invited`, `held`, `valid`, `expired` or `revoked`. */
  readonly state: string;
  /** Of the latest certificate, hex; '' when there is none. */
  readonly serial: string;
  /** ms since 1970; 0 when there is none. */
  readonly issuedMs: number;
  readonly notAfterMs: number;
  /** sha256 of the public key, hex. */
  readonly key: string;
  /** How it came in, or why it is out. */
  readonly why: string;
}

/** One line of the audit log; '' and 0 where it says nothing. */
export interface AuditEntryRow {
  /** ISO 8601. */
  readonly at: string;
  readonly event: string;
  readonly by: string;
  readonly about: string;
  readonly from: string;
  readonly code: string;
  readonly detail: string;
  /** Refusals before this one that are not in the log. */
  readonly unsaid: number;
}

export interface TrustReport {
  /** invite: its text, which is kept nowhere; else ''. */
  readonly token: string;
  /** sha256 of the CA's certificate, hex. */
  readonly fingerprint: string;
  /** Where machines join. */
  readonly enrolmentPort: number;
  readonly tokens: readonly TokenRow[];
  readonly members: readonly MemberRow[];
  readonly audit: readonly AuditEntryRow[];
}

export interface TraceReport {
  readonly deployment: string;
  readonly epoch: number;
  /** The dispatcher first. */
  readonly agents: readonly TraceSpans[];
}

/** `code` empty = it worked; then exactly the field that belongs to the request is set. */
export interface Response {
  readonly id: string;
  readonly code: string;
  readonly message: string;
  readonly status: StatusReport | null;
  readonly plan: PlanReport | null;
  readonly model: ModelAnswer | null;
  readonly profile: ProfileReport | null;
  readonly peers: PeersReport | null;
  readonly trust: TrustReport | null;
  readonly trace: TraceReport | null;
}
