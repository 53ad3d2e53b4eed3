// Made by generate.ts from the .avsc files. Do not edit.

export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'bool';

export type Encoding = 'raw' | 'float16' | 'uint8';

export type LaneKind = 'direct' | 'relay' | 'local' | 'down';

export interface Box {
  readonly start: readonly number[];
  readonly end: readonly number[];
}

export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

export interface BlobRef {
  readonly sha256: string;
  readonly sizeBytes: number;
}

export interface SliceRef {
  readonly graph: BlobRef;
  readonly blobs: readonly BlobRef[];
  readonly macs: number;
  readonly weightBytes: number;
  readonly activationBytes: number;
}

export interface Port {
  readonly name: string;
  readonly tensor: string;
  readonly dtype: DType;
  readonly box: Box;
}

export interface PlanPart {
  readonly slice: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

export interface PlanStage {
  readonly cut: string;
  readonly parts: readonly PlanPart[];
  readonly agents: readonly (readonly string[])[];
}

export interface Wire {
  readonly fromStage: number;
  readonly fromPart: number;
  readonly output: number;
  readonly toStage: number;
  readonly toPart: number;
  readonly input: number;
  readonly box: Box;
  readonly encoding: Encoding;
}

export interface PeerEntry {
  readonly agent: string;
  readonly addresses: readonly string[];
  readonly lanePort: number;
}

export interface Activation {
  readonly deployment: string;
  readonly term: number;
  readonly epoch: number;
  readonly frame: number;
  readonly attempt: number;
  readonly route: readonly number[];
  readonly wire: number;
  readonly lowWater: number;
  readonly remainingMs: number;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly encoding: Encoding;
  readonly scale: number;
  readonly zero: number;
}

export interface Submit {
  readonly client: string;
  readonly sequence: number;
  readonly deployment: string;
  readonly deadlineMs: number;
  readonly input: string;
  readonly inputCount: number;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

export interface Result {
  readonly client: string;
  readonly sequence: number;
  readonly code: string;
  readonly message: string;
  readonly output: string;
  readonly outputCount: number;
  readonly attempts: number;
  readonly latencyMs: number;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

export interface ResultAck {
  readonly client: string;
  readonly sequence: number;
}

export interface Cancel {
  readonly deployment: string;
  readonly term: number;
  readonly epoch: number;
  readonly frame: number;
  readonly attempt: number;
}

export interface Trouble {
  readonly agent: string;
  readonly deployment: string;
  readonly term: number;
  readonly epoch: number;
  readonly frame: number;
  readonly attempt: number;
  readonly peer: string;
  readonly code: string;
  readonly message: string;
}

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
  readonly nonce: string;
  readonly schemaFingerprint: string;
  readonly schemaVersion: number;
  readonly softwareVersion: string;
  readonly term: number;
  readonly addresses: readonly string[];
  readonly lanePort: number;
  readonly cores: number;
  readonly host: string;
  readonly hostCores: number;
  readonly cpuLimit: number;
  readonly engineThreads: number;
  readonly memoryBytes: number;
  readonly arch: string;
  readonly engine: string;
  readonly engineVersion: string;
  readonly cpu: string;
  readonly fingerprint: string;
  readonly probeMacsPerSecond: number;
  readonly storeBytesFree: number;
  readonly slices: readonly string[];
}

export interface SeatHealth {
  readonly deployment: string;
  readonly epoch: number;
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  readonly framesRun: number;
  readonly queue: number;
  readonly runMs: number;
}

export interface LaneHealth {
  readonly peer: string;
  readonly lane: LaneKind;
  readonly why: string;
  readonly bytesSent: number;
  readonly messagesSent: number;
  readonly sendMs: number;
  readonly receivedBytesPerSecond: number;
  readonly receivedSamples: number;
  readonly roundTripMs: number;
}

export interface Health {
  readonly agent: string;
  readonly nonce: string;
  readonly uptimeMs: number;
  readonly cpu: number;
  readonly rssBytes: number;
  readonly anonymousBytes: number;
  readonly memoryFreeBytes: number;
  readonly temperature: number;
  readonly queue: number;
  readonly framesPerSecond: number;
  readonly refused: number;
  readonly encodedMessages: number;
  readonly rawFallbacks: number;
  readonly seats: readonly SeatHealth[];
  readonly lanes: readonly LaneHealth[];
}

export interface Gone {
  readonly agent: string;
  readonly nonce: string;
  readonly why: string;
}

export interface Reign {
  readonly term: number;
  readonly schemaFingerprint: string;
  readonly schemaVersion: number;
}

export interface Prepare {
  readonly deployment: string;
  readonly epoch: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly stages: readonly PlanStage[];
  readonly wires: readonly Wire[];
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
  readonly peers: readonly PeerEntry[];
}

export interface Refuse {
  readonly code: string;
  readonly message: string;
}

export interface Ping {
  readonly padBytes: number;
}

export interface Profile {
  readonly slice: SliceRef;
  readonly threads: number;
  readonly runs: number;
  readonly budgetMs: number;
}

export interface ProfileResult {
  readonly engine: string;
  readonly engineVersion: string;
  readonly fingerprint: string;
  readonly threads: number;
  readonly loadMs: number;
  readonly samplesMs: readonly number[];
  readonly emptyBytes: number;
  readonly loadPeakBytes: number;
  readonly runPeakBytes: number;
  readonly busy: boolean;
}

export interface Measure {
  readonly peer: PeerEntry;
  readonly budgetMs: number;
  readonly budgetBytes: number;
  readonly evenIfBusy: boolean;
}

export type CommandBody =
  | { readonly kind: 'prepare'; readonly prepare: Prepare }
  | { readonly kind: 'commit'; readonly commit: Commit }
  | { readonly kind: 'release'; readonly release: Release }
  | { readonly kind: 'peers'; readonly peers: Peers }
  | { readonly kind: 'refuse'; readonly refuse: Refuse }
  | { readonly kind: 'ping'; readonly ping: Ping }
  | { readonly kind: 'profile'; readonly profile: Profile }
  | { readonly kind: 'measure'; readonly measure: Measure };

export interface Command {
  readonly id: string;
  readonly term: number;
  readonly nonce: string;
  readonly deadlineMs: number;
  readonly body: CommandBody;
}

export interface LinkMeasurement {
  readonly peer: string;
  readonly lane: LaneKind;
  readonly roundTripMs: number;
  readonly roundTripSpreadMs: number;
  readonly upBytesPerSecond: number;
  readonly upSpread: number;
  readonly downBytesPerSecond: number;
  readonly downSpread: number;
  readonly bytes: number;
  readonly tookMs: number;
}

export interface Reply {
  readonly id: string;
  readonly agent: string;
  readonly code: string;
  readonly message: string;
  readonly fetchedBytes: number;
  readonly loadMs: number;
  readonly profile: ProfileResult | null;
  readonly link: LinkMeasurement | null;
}

export interface Progress {
  readonly agent: string;
  readonly deployment: string;
  readonly epoch: number;
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

export interface BlobChunk {
  readonly id: string;
  readonly sha256: string;
  readonly offset: number;
  readonly totalBytes: number;
  readonly code: string;
  readonly data: Uint8Array;
}

export interface UploadChunk {
  readonly client: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly offset: number;
  readonly data: Uint8Array;
}

export interface UploadAck {
  readonly sha256: string;
  readonly heldBytes: number;
  readonly code: string;
  readonly message: string;
}

export interface ImageInput {
  readonly input: string;
  readonly height: number;
  readonly width: number;
  readonly order: string;
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

export interface DeployRequest {
  readonly name: string;
  readonly model: string;
  readonly shapes: readonly string[];
  readonly images: readonly ImageInput[];
  readonly objective: string;
  readonly planner: string;
  readonly cut: string;
  readonly shares: readonly number[];
  readonly agents: readonly string[];
  readonly inFlight: number;
  readonly deadlineMs: number;
  readonly maxError: number;
  readonly calibration: readonly string[];
  readonly plan: string;
  readonly verify: boolean;
  readonly dryRun: boolean;
  readonly explain: boolean;
}

export interface UndeployRequest {
  readonly name: string;
}

export interface StatusRequest {
  readonly name: string;
}

export interface ModelFile {
  readonly location: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

export interface ModelOffer {
  readonly path: string;
  readonly files: readonly ModelFile[];
}

export interface ProfileRequest {
  readonly job: string;
  readonly model: string;
  readonly shapes: readonly string[];
  readonly images: readonly ImageInput[];
  readonly agents: readonly string[];
  readonly cuts: readonly string[];
  readonly parts: readonly number[];
  readonly threads: readonly number[];
  readonly runs: number;
  readonly budgetMs: number;
  readonly fresh: boolean;
  readonly cancel: boolean;
}

export interface LinksRequest {
  readonly measure: boolean;
  readonly evenIfBusy: boolean;
  readonly agents: readonly string[];
}

export type RequestBody =
  | { readonly kind: 'deploy'; readonly deploy: DeployRequest }
  | { readonly kind: 'undeploy'; readonly undeploy: UndeployRequest }
  | { readonly kind: 'status'; readonly status: StatusRequest }
  | { readonly kind: 'where'; readonly where: StatusRequest }
  | { readonly kind: 'offer'; readonly offer: ModelOffer }
  | { readonly kind: 'profile'; readonly profile: ProfileRequest }
  | { readonly kind: 'links'; readonly links: LinksRequest };

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
  readonly bytesPerFrame: number;
  readonly rawBytesPerFrame: number;
}

export interface MemoryRow {
  readonly agent: string;
  readonly needBytes: number;
  readonly haveBytes: number;
}

export interface PrecisionRow {
  readonly fromStage: number;
  readonly toStage: number;
  readonly encoding: Encoding;
  readonly bytesPerFrame: number;
  readonly rawBytesPerFrame: number;
  readonly error: number;
  readonly why: string;
}

export interface PrecisionReport {
  readonly maxError: number;
  readonly error: number;
  readonly inputs: number;
  readonly random: boolean;
  readonly why: string;
  readonly rows: readonly PrecisionRow[];
}

export interface PlanAlternative {
  readonly name: string;
  readonly planner: string;
  readonly agents: number;
  readonly latencyMs: number;
  readonly fps: number;
  readonly refused: string;
}

export interface PlanDetails {
  readonly file: string;
  readonly inFlight: number;
  readonly maxRelDiff: number;
  readonly alternatives: readonly PlanAlternative[];
  readonly changes: readonly PlanAlternative[];
}

export interface PlanReport {
  readonly deployment: string;
  readonly epoch: number;
  readonly planner: string;
  readonly why: string;
  readonly basis: string;
  readonly predictedLatencyMs: number;
  readonly predictedFps: number;
  readonly seats: readonly PlanRow[];
  readonly links: readonly LinkRow[];
  readonly memory: readonly MemoryRow[];
  readonly precision: PrecisionReport | null;
  readonly details: PlanDetails | null;
}

export interface AgentStatus {
  readonly agent: string;
  readonly state: string;
  readonly addresses: readonly string[];
  readonly lanePort: number;
  readonly cores: number;
  readonly host: string;
  readonly hostCores: number;
  readonly cpuLimit: number;
  readonly engineThreads: number;
  readonly correction: number;
  readonly memoryBytes: number;
  readonly probeMacsPerSecond: number;
  readonly softwareVersion: string;
  readonly health: Health | null;
}

export interface LiveRow {
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  readonly agent: string;
  readonly predictedMs: number;
  readonly measuredMs: number;
  readonly frames: number;
  readonly factor: number;
}

export interface DeploymentStatus {
  readonly name: string;
  readonly model: string;
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
  readonly rawFallbacks: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly framesPerSecond: number;
  readonly plan: PlanReport | null;
  readonly expectedLatencyMs: number;
  readonly expectedFps: number;
  readonly live: readonly LiveRow[];
  readonly progress: readonly Progress[];
}

export interface EventRow {
  readonly atMs: number;
  readonly kind: string;
  readonly text: string;
}

export interface LinkStatus {
  readonly from: string;
  readonly to: string;
  readonly lane: string;
  readonly bytesPerSecond: number;
  readonly latencyMs: number;
  readonly spread: number;
  readonly source: string;
  readonly ageMs: number;
  readonly problem: string;
}

export interface StatusReport {
  readonly cluster: string;
  readonly term: number;
  readonly uptimeMs: number;
  readonly dispatcherAddresses: readonly string[];
  readonly dispatcherPort: number;
  readonly agents: readonly AgentStatus[];
  readonly deployments: readonly DeploymentStatus[];
  readonly host: string;
  readonly links: readonly LinkStatus[];
  readonly events: readonly EventRow[];
}

export interface MissingFile {
  readonly sha256: string;
  readonly heldBytes: number;
}

export interface ModelAnswer {
  readonly model: string;
  readonly missing: readonly MissingFile[];
}

export interface ProfileClass {
  readonly fingerprint: string;
  readonly text: string;
  readonly agents: readonly string[];
  readonly threads: number;
  readonly runMs: number;
}

export interface ProfileMeasure {
  readonly fingerprint: string;
  readonly threads: number;
  readonly what: string;
  readonly label: string;
  readonly startNode: number;
  readonly endNode: number;
  readonly cut: string;
  readonly parts: number;
  readonly macs: number;
  readonly weightBytes: number;
  readonly from: string;
  readonly agent: string;
  readonly ms: number;
  readonly lowMs: number;
  readonly highMs: number;
  readonly samplesMs: readonly number[];
  readonly loadMs: number;
  readonly loadPeakBytes: number;
  readonly runPeakBytes: number;
  readonly busy: boolean;
  readonly code: string;
  readonly message: string;
}

export interface ProfileCheck {
  readonly fingerprint: string;
  readonly threads: number;
  readonly what: string;
  readonly label: string;
  readonly cut: string;
  readonly parts: number;
  readonly measuredMs: number;
  readonly predictedMs: number;
}

export interface ProfileReport {
  readonly job: string;
  readonly state: string;
  readonly code: string;
  readonly message: string;
  readonly model: string;
  readonly done: number;
  readonly total: number;
  readonly current: string;
  readonly classes: readonly ProfileClass[];
  readonly rows: readonly ProfileMeasure[];
  readonly checks: readonly ProfileCheck[];
  readonly notes: readonly string[];
}

export interface Response {
  readonly id: string;
  readonly code: string;
  readonly message: string;
  readonly status: StatusReport | null;
  readonly plan: PlanReport | null;
  readonly model: ModelAnswer | null;
  readonly profile: ProfileReport | null;
}

/** Every schema by name. */
export interface All {
  DType: DType;
  Encoding: Encoding;
  LaneKind: LaneKind;
  Box: Box;
  TensorInfo: TensorInfo;
  BlobRef: BlobRef;
  SliceRef: SliceRef;
  Port: Port;
  PlanPart: PlanPart;
  PlanStage: PlanStage;
  Wire: Wire;
  PeerEntry: PeerEntry;
  Activation: Activation;
  Submit: Submit;
  Result: Result;
  ResultAck: ResultAck;
  Cancel: Cancel;
  Trouble: Trouble;
  Probe: Probe;
  Hello: Hello;
  SeatHealth: SeatHealth;
  LaneHealth: LaneHealth;
  Health: Health;
  Gone: Gone;
  Reign: Reign;
  Prepare: Prepare;
  Commit: Commit;
  Release: Release;
  Peers: Peers;
  Refuse: Refuse;
  Ping: Ping;
  Profile: Profile;
  ProfileResult: ProfileResult;
  Measure: Measure;
  CommandBody: CommandBody;
  Command: Command;
  LinkMeasurement: LinkMeasurement;
  Reply: Reply;
  Progress: Progress;
  BlobRequest: BlobRequest;
  BlobChunk: BlobChunk;
  UploadChunk: UploadChunk;
  UploadAck: UploadAck;
  ImageInput: ImageInput;
  DeployRequest: DeployRequest;
  UndeployRequest: UndeployRequest;
  StatusRequest: StatusRequest;
  ModelFile: ModelFile;
  ModelOffer: ModelOffer;
  ProfileRequest: ProfileRequest;
  LinksRequest: LinksRequest;
  RequestBody: RequestBody;
  Request: Request;
  PlanRow: PlanRow;
  LinkRow: LinkRow;
  MemoryRow: MemoryRow;
  PrecisionRow: PrecisionRow;
  PrecisionReport: PrecisionReport;
  PlanAlternative: PlanAlternative;
  PlanDetails: PlanDetails;
  PlanReport: PlanReport;
  AgentStatus: AgentStatus;
  LiveRow: LiveRow;
  DeploymentStatus: DeploymentStatus;
  EventRow: EventRow;
  LinkStatus: LinkStatus;
  StatusReport: StatusReport;
  MissingFile: MissingFile;
  ModelAnswer: ModelAnswer;
  ProfileClass: ProfileClass;
  ProfileMeasure: ProfileMeasure;
  ProfileCheck: ProfileCheck;
  ProfileReport: ProfileReport;
  Response: Response;
}
