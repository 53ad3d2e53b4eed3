import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../models/engine/onnxruntime.js';
import { hasTestdata, TESTDATA, verifyTestModel } from './testdata.js';

/** A sample with what cuts trip over; `npx tsx scripts/verify-testdata.ts` runs all of them. */
const SAMPLE = [
  'averagepool_2d_ceil',
  'averagepool_2d_pads_count_include_pad',
  'averagepool_2d_precomputed_same_upper',
  'averagepool_2d_same_lower',
  'basic_conv_with_padding',
  'basic_conv_without_padding',
  'batchnorm_example',
  'concat_2d_axis_1',
  'conv_with_autopad_same',
  'conv_with_strides_and_asymmetric_padding',
  'convtranspose',
  'convtranspose_autopad_same',
  'convtranspose_dilations',
  'convtranspose_output_shape',
  'convtranspose_pad',
  'depthtospace_example',
  'edge_pad',
  'gather_1',
  'gemm_all_attributes',
  'globalaveragepool',
  'globalmaxpool',
  'instancenorm_example',
  'lrn',
  'matmul_3d',
  'maxpool_2d_ceil',
  'maxpool_2d_dilations',
  'maxpool_2d_same_upper',
  'maxpool_2d_uint8',
  'prelu_broadcast',
  'reduce_mean_keepdims_example',
  'reflect_pad',
  'resize_upsample_scales_linear_align_corners',
  'resize_upsample_scales_nearest',
  'slice',
  'softmax_axis_1',
  'split_equal_parts_2d',
  'sum_example',
  'transpose_all_permutations_3',
  'where_example',
  'xor_bcast4v2d',
];

describe.skipIf(!hasTestdata())(`models that ONNX ships, in ${TESTDATA} (skipped where libonnx-testdata is not installed)`, () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createOnnxRuntimeEngine({ threads: 1 });
  });
  afterAll(() => engine.dispose());

  it.each(SAMPLE)('%s computes the same whole, imported and cut', async (name) => {
    const result = await verifyTestModel(engine, `node/test_${name}/model.onnx`);
    expect(result).toMatchObject({ outcome: 'equal', engineDiffers: false });
  });

  it.each([
    'pytorch-converted/test_Conv2d_strided',
    'pytorch-converted/test_Conv3d_groups',
    'pytorch-converted/test_ConvTranspose2d',
    'pytorch-converted/test_PixelShuffle',
    'pytorch-operator/test_operator_conv',
  ])('%s gives the shipped output whole, by rows and by columns', async (name) => {
    const result = await verifyTestModel(engine, `${name}/model.onnx`);
    expect(result).toMatchObject({ outcome: 'equal', engineDiffers: false });
    expect(result.cuts).toEqual(expect.arrayContaining(['whole', 'rows:2', 'columns:2']));
  });

  it('a model that no engine here knows is listed with its reason', async () => {
    const result = await verifyTestModel(engine, 'node/test_sequence_insert_at_back/model.onnx');
    expect(result.outcome).toBe('unsupported');
    expect(result.reason).toContain('sequence');
  });
});
