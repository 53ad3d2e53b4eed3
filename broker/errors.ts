/**
 * Every error this project raises on purpose has a stable code from this table. Branch on the code, never on text.
 * The table is the source of `docs/errors.md` (a test keeps them equal). Codes are never reused for another meaning.
 *
 * This file imports nothing: `models/` may use it although it may import nothing else of ours.
 */
export const ERROR_CODES = {
  // models/: files and graphs
  MODEL_NOT_FOUND: 'The model file does not exist or cannot be read.',
  MODEL_UNREADABLE: 'The file is not a complete ONNX model (truncated, or not ONNX at all).',
  MODEL_UNSUPPORTED: 'The model uses something this project or the engine cannot run (an unknown operator, a sequence crossing a cut).',
  MODEL_SHAPE_UNKNOWN: 'An input has a dynamic dimension that was not fixed with --shape.',
  MODEL_SHAPE_INVALID: 'A --shape does not fit the model (unknown input, wrong rank, a fixed dimension contradicted).',
  MODEL_WEIGHTS_MISSING: 'External weight data named by the model is missing or too short.',
  WORK_DIRECTORY_UNUSABLE: 'The directory for weights and slices cannot be written (full, read-only, not a directory).',
  CUT_INVALID: 'A cut was written wrongly (unknown kind, parts or shares that make no sense).',
  CUT_NOT_POSSIBLE: 'The requested cut does not apply to this part of the graph; the message gives the reason.',
  VERIFY_FAILED: 'The cut model does not compute what the whole model computes.',
  ENGINE_UNAVAILABLE: 'The inference engine cannot be loaded on this machine.',
  ENGINE_LOAD_FAILED: 'The engine refused a slice or model.',
  ENGINE_RUN_FAILED: 'The engine failed while running a slice.',
  ENGINE_INPUT_INVALID: 'A tensor given to the engine has the wrong name, dtype or shape.',
  ENGINE_CLOSED: 'The engine or session was used after it was disposed, or its worker died.',
  TENSOR_INVALID: 'A tensor or box contradicts itself (rank, dims, bytes).',
  // files people hand in
  FILE_NOT_FOUND: 'A file or folder named on the command line does not exist, or may not be read or written.',
  FILE_EXISTS: 'A file that would be written is there already.',
  IMAGE_UNREADABLE: 'The file is not an image this project can decode.',
  NPY_UNREADABLE: 'The file is not a .npy tensor this project can read.',
  // broker/: bytes, topics, lanes
  CODEC_INVALID: 'Bytes do not decode to the message expected on this topic.',
  CODEC_LIMIT: 'A message exceeds a bound (rank, dims, bytes, list length).',
  SCHEMA_MISMATCH: 'Peer and host speak schema versions that cannot be reconciled.',
  BROKER_UNREACHABLE: 'The MQTT broker cannot be reached.',
  BROKER_REFUSED: 'The MQTT broker does not permit this topic to this client.',
  INSECURE_REFUSED:
    'A plain connection was asked for where credentials are used, or the other way round; --insecure says that it is meant.',
  TLS_FAILED: 'A TLS connection did not come about: the other end speaks something else, or broke off.',
  SIGNATURE_WRONG: "A command does not carry the signature of the scheduler's key; it is not obeyed.",
  BROKER_LOST: 'The connection to the MQTT broker was lost while something waited on it.',
  PORT_IN_USE: 'The address to listen on is already in use.',
  PACKET_TOO_LARGE: 'An MQTT packet exceeds the limit set for this listener.',
  QUEUE_FULL: 'A bounded queue is full; the sender must slow down.',
  LINK_IMPLAUSIBLE:
    'A measured or configured link has a speed or latency that cannot be (zero, negative, not a number, absurdly high); it is not used.',
  DISCOVERY_UNAVAILABLE: 'This process cannot take part in multicast DNS (the port is held by another program, or there is no network).',
  GATEWAY_NOT_FOUND: 'No gateway of the cluster answered on the local network.',
  GATEWAY_AMBIGUOUS: 'Several gateways on the local network say that they serve the cluster, and nothing tells them apart.',
  LANE_DOWN: 'No lane to the peer is up, direct or relayed.',
  REQUEST_TIMEOUT: 'No reply came before the deadline; the message says what was waited for.',
  STOPPED: 'The component was stopped while the request was under way.',
  // broker/credentials/: who may be here
  CREDENTIALS_MISSING: 'This process has no certificate of the cluster: it has not joined yet.',
  CREDENTIALS_DAMAGED: 'Certificate, key and CA cannot be read or written, or do not belong together.',
  CREDENTIALS_WRONG: 'The credentials are of another cluster, role or name than this process is to have.',
  CERTIFICATE_FOREIGN: "A certificate is not one of this cluster's: another CA, another cluster, or none of musical-chair at all.",
  CERTIFICATE_EXPIRED: 'A certificate is not valid now: expired, or not valid yet.',
  CERTIFICATE_REVOKED: 'A certificate, or everything with its name, was revoked.',
  CA_WRONG: "The gateway's CA is not the one that the token names: another gateway, or somebody in between.",
  TOKEN_INVALID: 'The text is not a whole token.',
  TOKEN_REFUSED: 'The gateway knows no such token, or does not take it any more.',
  TOKEN_EXPIRED: 'The token was not used in time.',
  TOKEN_USED: 'The token was used already, by another key.',
  TOKEN_NAME_WRONG: 'The token is for another name or role than the one that asks with it.',
  JOIN_HELD: 'The gateway holds the join until an operator approves it.',
  JOIN_REFUSED: 'The gateway refused a request to join or to renew; the message says why.',
  JOIN_BUSY: 'The gateway takes no more requests to join from this address for the moment.',
  GATEWAY_UNREACHABLE: "The gateway's enrolment port cannot be reached, or what answers there makes no sense.",
  IDENTITY_TAKEN: 'The name has a valid certificate already.',
  IDENTITY_UNKNOWN: 'Nobody of this name has joined, and no token is for it.',
  TRUST_OFF: 'This gateway runs without certificates (--insecure), so nobody joins it with a token.',
  // node-agent/
  AGENT_NAME_TAKEN: 'Another live agent uses this name.',
  AGENT_NAME_INVALID: 'An agent, cluster or deployment name has characters that are not allowed.',
  AGENT_STORE_FULL: "The agent's slice store has no room left (disk full or limit reached).",
  AGENT_OUT_OF_MEMORY: 'The agent has not enough memory to load a slice.',
  AGENT_BUSY: 'The agent cannot take the command now.',
  AGENT_UNKNOWN: 'No agent of this name is known.',
  BLOB_NOT_FOUND: 'The gateway does not hold the blob asked for.',
  BLOB_CORRUPT: 'Bytes received for a blob do not hash to its name.',
  UPLOAD_TOO_LARGE: "A model is larger than the gateway's limit for models that clients send.",
  UPLOAD_BUSY: 'The gateway is taking as many uploads as it can; try again when one of them is done.',
  GATEWAY_STORE_FULL: 'The gateway has no room for the model (disk full, or all it holds is in use).',
  EPOCH_STALE: 'A command or message belongs to an epoch or term that is over.',
  TERM_STALE: 'A command comes from a scheduler that was replaced: another one has reigned since.',
  SEAT_UNKNOWN: 'A message names a seat this agent does not hold.',
  SENDER_WRONG: 'A message came from, or in the name of, somebody who cannot have sent it.',
  CLUSTER_WRONG: 'A message or a connection was meant for another cluster.',
  FRAME_LATE: 'A message belongs to a frame that is finished, cancelled or issued again.',
  // scheduler/
  STATE_DAMAGED: 'A file in which state is kept was changed by something else, or is of another version; it is put aside and not used.',
  BACKUP_UNUSABLE: 'A file is no whole backup of a gateway (cut off, changed, of another version, or something else).',
  CLUSTER_TAKEN: 'Another gateway or scheduler serves this cluster, or holds its state folder.',
  NO_AGENTS: 'No ready agent is available for the plan.',
  PLAN_INVALID: 'A plan contradicts itself or names what does not exist.',
  PLAN_FILE_UNREADABLE: 'A plan file is no plan (not YAML or JSON, too long, a key missing, unknown or of the wrong kind).',
  PLAN_MODEL_MISMATCH: 'A plan file was made for another model.',
  DEVICES_INVALID: 'A device file is wrong (not YAML or JSON, an unknown profile, a size or rate that makes no sense).',
  PLAN_NOT_POSSIBLE: 'No plan satisfies the request on these agents; the message gives the tightest limit.',
  PLANNER_FAILED: 'The planner gave no answer: it crashed, or took longer than it may.',
  PREPARE_FAILED: 'An agent could not prepare its seats.',
  DEPLOYMENT_UNKNOWN: 'No deployment of this name exists.',
  DEPLOYMENT_EXISTS: 'A deployment of this name exists already.',
  DEPLOYMENT_REMOVED: 'The deployment was removed while the frame was under way.',
  DEPLOYMENT_NOT_READY: 'The deployment has no plan in force.',
  FRAME_INVALID: "A frame's tensors do not fit the deployment's inputs.",
  FRAME_REFUSED: 'The dispatcher has no room for the frame; send fewer at once.',
  FRAME_DEADLINE: 'The frame missed its deadline.',
  FRAME_FAILED: 'The frame failed on every attempt.',
  PROFILE_FAILED: 'A measurement on an agent failed (the slice does not fit its memory, the measuring process died, it took too long).',
  PROFILE_CANCELLED: 'A measurement was given up: the agent stops, drains or lost its scheduler, or nobody waits for it any more.',
  PROFILE_INVALID: 'A request for profiles, or a file of the profile cache, cannot be used; the message says why.',
  // bundles and updates
  BUNDLE_FAILED: 'A bundle cannot be made: something that belongs into it is missing, or it cannot be written.',
  BUNDLE_DAMAGED: 'A bundle is not whole: a byte changed, a file is missing or too many, or it is no bundle.',
  BUNDLE_WRONG_ARCH: 'A bundle, or the system it is to be installed on, is for another processor (a 32-bit system, say).',
  NODE_UNSUITABLE: 'The Node.js given for a bundle is not what its checksum says, or not for that processor.',
  UPDATE_REFUSED: 'An agent or gateway does not take an update; the message says why.',
  UPDATE_FAILED: 'An agent was updated but did not come back well; it runs the program of before again.',
  // scripts/
  USAGE: 'The command line is wrong.',
  CONFIG_INVALID: 'A configuration file, variable or flag is wrong.',
  SERVICE_FAILED: 'The system service could not be installed or removed; the message says which step failed.',
  PLOT_UNAVAILABLE: 'The optional plot library is not installed here.',
  FLASH_IMAGE_FOREIGN: 'The image is not a Raspberry Pi OS image as it was downloaded, or knows no first boot that can be used.',
  FLASH_IMAGE_32_BIT: 'The image holds the 32-bit Raspberry Pi OS, on which the inference engine does not run.',
  FLASH_IMAGE_DAMAGED: 'The image or its .xz file is cut off or damaged.',
  FLASH_BOOT_FULL: "The image's boot partition has no room for what the first boot needs.",
  FLASH_OUTPUT_UNUSABLE: 'The image file to write exists already, or cannot be written there.',
  FLASH_DEVICE_REFUSED: 'The device is not written: it is in use, fixed, no card, or its name was not typed again.',
  FLASH_DEVICE_TOO_SMALL: 'The card is smaller than the image.',
  FLASH_VERIFY_FAILED: 'What was written does not read back as it was.',
  TESTBED_FAILED: 'The testbed could not make or remove a namespace, link, control group or process.',
  INTERNAL: 'A defect in musical-chair; please report it.',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface ErrorDetail {
  /** What was expected, as a noun phrase. */
  readonly expected?: string;
  /** What came instead. */
  readonly came?: string;
  /** What the reader can do about it. */
  readonly todo?: string;
  readonly cause?: unknown;
}

/** The one error class: `code` is stable, `message` says what was expected, what came and what to do. */
export class ChairError extends Error {
  readonly code: ErrorCode;
  readonly detail: ErrorDetail;

  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
    const parts = [message];
    if (detail.expected !== undefined) parts.push(`expected ${detail.expected}`);
    if (detail.came !== undefined) parts.push(`got ${detail.came}`);
    const said = parts.join('; ');
    super(
      // What came may be a sentence with its own full stop.
      detail.todo === undefined ? said : `${said.replace(/\.$/, '')}. ${detail.todo}`,
      detail.cause === undefined ? {} : { cause: detail.cause },
    );
    this.name = 'ChairError';
    this.code = code;
    this.detail = detail;
  }
}

/** True for a code of ours; not for names that every object has. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}

/** True for an error of ours, optionally of one code. Works across worker threads, where prototypes are lost. */
export function isChairError(error: unknown, code?: ErrorCode): error is ChairError {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false;
  return isErrorCode(error.code) && (code === undefined || error.code === code);
}

/** Turns anything thrown into a ChairError: ours pass through, others become `fallback` with the cause kept. */
export function toChairError(error: unknown, fallback: ErrorCode = 'INTERNAL'): ChairError {
  if (error instanceof ChairError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ChairError(isChairError(error) ? error.code : fallback, message, { cause: error });
}
