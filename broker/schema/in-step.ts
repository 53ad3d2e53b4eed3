/**
 * Compiles only while the hand-written types and the `.avsc` files say the same: a field added, renamed or retyped on one side is an error here that names
 * the record. The compiler's message reads: property 'Hello' is missing in type '{}'.
 */
import type * as Ours from '../messages.js';
import type * as Plan from '../plan.js';
import type * as Tensor from '../tensor.js';
import type { All } from './messages.gen.js';

/** Our types by the name of their schema. */
interface Written {
  DType: Tensor.DType;
  Encoding: Ours.Encoding;
  LaneKind: Ours.LaneHealth['lane'];
  Box: Tensor.Box;
  TensorInfo: Tensor.TensorInfo;
  BlobRef: Plan.BlobRef;
  SliceRef: Plan.SliceRef;
  Port: Plan.Port;
  PlanPart: Plan.PlanPart;
  PlanStage: Plan.PlanStage;
  Wire: Plan.Wire;
  PeerEntry: Ours.PeerEntry;
  Activation: Ours.ActivationHeader;
  Submit: Ours.SubmitHeader;
  Result: Ours.ResultHeader;
  ResultAck: Ours.ResultAck;
  Cancel: Ours.Cancel;
  Trouble: Ours.Trouble;
  Probe: Ours.Probe;
  Hello: Ours.Hello;
  SeatHealth: Ours.SeatHealth;
  LaneHealth: Ours.LaneHealth;
  Health: Ours.Health;
  Gone: Ours.Gone;
  Reign: Ours.Reign;
  Prepare: Ours.Prepare;
  Commit: Ours.Commit;
  Release: Ours.Release;
  Peers: Ours.Peers;
  Refuse: Ours.Refuse;
  Ping: Ours.Ping;
  Profile: Ours.Profile;
  ProfileResult: Ours.ProfileResult;
  Measure: Ours.Measure;
  CommandBody: Ours.CommandBody;
  Command: Ours.Command;
  LinkMeasurement: Ours.LinkMeasurement;
  Reply: Ours.Reply;
  Progress: Ours.Progress;
  BlobRequest: Ours.BlobRequest;
  BlobChunk: Ours.BlobChunk;
  UploadChunk: Ours.UploadChunk;
  UploadAck: Ours.UploadAck;
  ImageInput: Ours.ImageInput;
  DeployRequest: Ours.DeployRequest;
  UndeployRequest: Ours.UndeployRequest;
  StatusRequest: Ours.StatusRequest;
  ModelFile: Ours.ModelFile;
  ModelOffer: Ours.ModelOffer;
  ProfileRequest: Ours.ProfileRequest;
  LinksRequest: Ours.LinksRequest;
  RequestBody: Ours.RequestBody;
  Request: Ours.Request;
  PlanRow: Ours.PlanRow;
  LinkRow: Ours.LinkRow;
  MemoryRow: Ours.MemoryRow;
  PrecisionRow: Ours.PrecisionRow;
  PrecisionReport: Ours.PrecisionReport;
  PlanAlternative: Ours.PlanAlternative;
  PlanDetails: Ours.PlanDetails;
  PlanReport: Ours.PlanReport;
  AgentStatus: Ours.AgentStatus;
  LiveRow: Ours.LiveRow;
  DeploymentStatus: Ours.DeploymentStatus;
  EventRow: Ours.EventRow;
  LinkStatus: Ours.LinkStatus;
  StatusReport: Ours.StatusReport;
  MissingFile: Ours.MissingFile;
  ModelAnswer: Ours.ModelAnswer;
  ProfileClass: Ours.ProfileClass;
  ProfileMeasure: Ours.ProfileMeasure;
  ProfileCheck: Ours.ProfileCheck;
  ProfileReport: Ours.ProfileReport;
  Response: Ours.Response;
}

/** Exactly the same type, `readonly` and optional included (two conditional types are identical only when what they compare with is). */
type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Names of records that differ, or stand on one side only. */
type Differing = {
  [K in keyof All | keyof Written]: K extends keyof All & keyof Written ? (Equals<All[K], Written[K]> extends true ? never : K) : K;
}[keyof All | keyof Written];

export const inStep: Record<Differing, 'differs between the .avsc file and the TypeScript type'> = {};
