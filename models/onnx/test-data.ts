/**
 * Test data as ONNX ships it beside its models: `<model>/model.onnx`, `<model>/test_data_set_N/{input,output}_I.pb`
 * (onnx/backend/test/README: serialized TensorProto, or SequenceProto and OptionalProto for values of these types).
 */
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import { type GraphProto, ModelProtoSchema, TensorProtoSchema, type ValueInfoProto } from 'onnx-buf';
import { ChairError } from '../../broker/errors.js';
import { allocTensor, type Tensor } from '../../broker/tensor.js';
import { dtypeOfCode, onnxTypeName } from './dtypes.js';
import { rawTensor } from './tensor-proto.js';

export interface TestSet {
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs: Readonly<Record<string, Tensor>>;
}

export interface TestModel {
  readonly path: string;
  /** Operators of the main graph. */
  readonly ops: ReadonlySet<string>;
  /** Undefined when a value at the model's ends is no tensor of a fixed-size type; `reason` says which. */
  readonly set: TestSet | undefined;
  readonly reason?: string;
}

/** Why a value cannot be held as a tensor here; undefined when it can. */
function misfit(value: ValueInfoProto): string | undefined {
  const type = value.type?.value;
  if (type?.case !== 'tensorType') return `${value.name} is of type ${type?.case?.replace('Type', '') ?? 'unknown'}`;
  const { elemType } = type.value;
  return dtypeOfCode(elemType) === undefined ? `${value.name} holds ${onnxTypeName(elemType)}` : undefined;
}

async function readTensors(folder: string, kind: 'input' | 'output', values: readonly ValueInfoProto[]): Promise<Record<string, Tensor>> {
  const files = (await readdir(folder)).filter((f) => f.startsWith(`${kind}_`));
  const tensors: Record<string, Tensor> = {};
  for (const [i, value] of values.entries()) {
    const file = `${kind}_${i}.pb`;
    if (!files.includes(file)) continue;
    const raw = rawTensor(fromBinary(TensorProtoSchema, await readFile(join(folder, file))), `${folder}/${file}`);
    if (raw === undefined) throw new ChairError('MODEL_UNREADABLE', `${folder}/${file} does not fit the model`);
    const tensor = allocTensor(raw.dtype, raw.dims);
    tensor.bytes.set(raw.bytes);
    tensors[value.name] = tensor;
  }
  return tensors;
}

/** Graph inputs that are no initializers (before IR 4 these were inputs too). */
function freeInputs(graph: GraphProto): ValueInfoProto[] {
  const weights = new Set(graph.initializer.map((w) => w.name));
  return graph.input.filter((value) => !weights.has(value.name));
}

/** Reads what stands beside a model. Throws MODEL_UNREADABLE for files that are not what they should be. */
export async function readTestModel(path: string, setIndex = 0): Promise<TestModel> {
  try {
    const { graph } = fromBinary(ModelProtoSchema, await readFile(path));
    if (graph === undefined) throw new Error('no graph');
    const ops = new Set(graph.node.map((node) => node.opType));
    const reason = [...freeInputs(graph), ...graph.output].map(misfit).find((r) => r !== undefined);
    if (reason !== undefined) return { path, ops, set: undefined, reason };
    const folder = join(dirname(path), `test_data_set_${setIndex}`);
    const set = {
      inputs: await readTensors(folder, 'input', freeInputs(graph)),
      outputs: await readTensors(folder, 'output', graph.output),
    };
    return { path, ops, set };
  } catch (cause) {
    throw new ChairError('MODEL_UNREADABLE', `${path} or the data beside it cannot be read`, {
      came: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}
