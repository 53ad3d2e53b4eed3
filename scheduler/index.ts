/** What the package gives to programs: the client, what it takes and gives, and its errors. */
export { type Credentials, readCredentials } from '../broker/credentials/credentials.js';
export { type CredentialSource, fixedSource } from '../broker/credentials/source.js';
export { ChairError, type ErrorCode, isChairError } from '../broker/errors.js';
export type { AgentStatus, DeploymentStatus, ImageInput, PlanReport, StatusReport } from '../broker/messages.js';
export { allocTensor, type DType, type Tensor, type TensorInfo } from '../broker/tensor.js';
export { type Trust, trustOf } from '../broker/trust.js';
export { ChairClient, type ClientOptions, type DeployOptions, type InferOptions, type InferResult } from './client.js';
