import { fromBinary } from '@bufbuild/protobuf';
import { ModelProtoSchema, TensorProto_DataLocation } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { floatAttr, intAttr, intsAttr, stringAttr } from './attributes.js';
import { GraphBuilder } from './build.js';
import { encodeGraph, type GraphSpec, PRODUCER } from './encode.js';

function convolution(): GraphSpec {
  const graph = new GraphBuilder({ name: 'g' });
  const x = graph.input('x', 'float32', ['n', 3, 8, 8]);
  const w = graph.weight(
    'w',
    'float32',
    [4, 3, 3, 3],
    Float32Array.from({ length: 108 }, (_, i) => i),
  );
  const y = graph.node1('Conv', [x, w], { pads: [1, 1, 1, 1], auto_pad: 'NOTSET' });
  graph.output(graph.node1('LeakyRelu', [y], { alpha: { float: 1 } }), 'float32', ['n', 4, 8, 8]);
  return graph.spec();
}

describe('encodeGraph', () => {
  it('gives the same bytes for the same graph', () => {
    expect(encodeGraph(convolution())).toEqual(encodeGraph(convolution()));
  });

  it('decodes to what was given', () => {
    const model = fromBinary(ModelProtoSchema, encodeGraph(convolution()));
    expect(model.producerName).toBe(PRODUCER);
    expect(model.opsetImport.map((o) => [o.domain, o.version])).toEqual([['', 17n]]);
    const [conv, relu] = model.graph?.node ?? [];
    const attributes = new Map(conv?.attribute.map((a) => [a.name, a]));
    expect(intsAttr({ attributes }, 'pads', [])).toEqual([1, 1, 1, 1]);
    expect(stringAttr({ attributes }, 'auto_pad', '')).toBe('NOTSET');
    expect(intAttr({ attributes }, 'group', 1)).toBe(1);
    expect(floatAttr({ attributes: new Map(relu?.attribute.map((a) => [a.name, a])) }, 'alpha', 0.01)).toBe(1);
    const [weight] = model.graph?.initializer ?? [];
    expect(weight?.dims).toEqual([4n, 3n, 3n, 3n]);
    expect(new Float32Array(Uint8Array.from(weight?.rawData ?? []).buffer).at(107)).toBe(107);
    expect(model.graph?.input[0]?.type?.value.value).toMatchObject({
      elemType: 1,
      shape: { dim: [{ value: { value: 'n' } }, {}, {}, {}] },
    });
  });

  it('names external data instead of holding it', () => {
    const [weight] = convolution().initializers;
    const data = { kind: 'external' as const, location: 'abc', offset: 64, length: 432 };
    const bytes = encodeGraph({ ...convolution(), initializers: weight === undefined ? [] : [{ ...weight, data }] });
    const [tensor] = fromBinary(ModelProtoSchema, bytes).graph?.initializer ?? [];
    expect(tensor?.dataLocation).toBe(TensorProto_DataLocation.EXTERNAL);
    expect(tensor?.externalData.map((e) => `${e.key}=${e.value}`)).toEqual(['location=abc', 'offset=64', 'length=432']);
    expect(tensor?.rawData.length).toBe(0);
  });

  it('refuses a weight whose bytes do not fit its dims', () => {
    const graph = new GraphBuilder();
    graph.weight('w', 'float32', [3], Float32Array.of(1, 2));
    expect(() => graph.encode()).toThrow(expect.objectContaining({ code: 'TENSOR_INVALID' }));
    const streamed = new GraphBuilder();
    streamed.weight('w', 'float32', [3], () => [Float32Array.of(1, 2)]);
    expect(() => streamed.encode()).toThrow(expect.objectContaining({ code: 'TENSOR_INVALID' }));
  });
});
