/** What the package gives to programs: the client, what it takes and gives, and its errors. */
export { ChairError, type ErrorCode, isChairError } from '../broker/errors.js';
export type { AgentStatus, DeploymentStatus, ImageInput, PlanReport, StatusReport } from '../broker/messages.js';
export { allocTensor, type DType, type Tensor, type TensorInfo } from '../broker/tensor.js';
export { ChairClient, type ClientOptions, type DeployOptions, type InferOptions, type InferResult } from './client.js';
