/** Reading and making ONNX node attributes. Readers take the default of the operator's specification. */
import { create } from '@bufbuild/protobuf';
import { type AttributeProto, AttributeProtoSchema, AttributeProto_AttributeType as Kind, type TensorProto } from 'onnx-buf';

import type { Model } from '../model.js';

interface WithAttributes {
  readonly attributes: ReadonlyMap<string, AttributeProto>;
}

const text = new TextDecoder();
const bytes = new TextEncoder();

/** A model that came from another thread: a copy of an attribute lacks the defaults of fields that the file leaves out. */
export function revived(model: Model): Model {
  const defaults: object = Object.getPrototypeOf(create(AttributeProtoSchema));
  for (const node of model.nodes) for (const attribute of node.attributes.values()) Object.setPrototypeOf(attribute, defaults);
  return model;
}

export function hasAttr(node: WithAttributes, name: string): boolean {
  return node.attributes.has(name);
}

export function intAttr(node: WithAttributes, name: string, fallback: number): number {
  const attribute = node.attributes.get(name);
  return attribute === undefined ? fallback : Number(attribute.i);
}

export function intsAttr(node: WithAttributes, name: string, fallback: readonly number[]): number[] {
  const attribute = node.attributes.get(name);
  return attribute === undefined ? [...fallback] : attribute.ints.map(Number);
}

export function floatAttr(node: WithAttributes, name: string, fallback: number): number {
  return node.attributes.get(name)?.f ?? fallback;
}

export function floatsAttr(node: WithAttributes, name: string, fallback: readonly number[]): number[] {
  return [...(node.attributes.get(name)?.floats ?? fallback)];
}

export function stringAttr(node: WithAttributes, name: string, fallback: string): string {
  const attribute = node.attributes.get(name);
  return attribute === undefined ? fallback : text.decode(attribute.s);
}

export function tensorAttr(node: WithAttributes, name: string): TensorProto | undefined {
  return node.attributes.get(name)?.t;
}

/**
 * A value that `attribute` turns into an AttributeProto: integers become INT(S), other numbers FLOAT(S), strings STRING(S).
 * A whole number meant as a float is written `{ float: 1 }` or `{ floats: [0, 1] }`.
 */
export type AttributeValue =
  | number
  | string
  | readonly number[]
  | readonly string[]
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  | { readonly ints: readonly number[] }
  | { readonly tensor: TensorProto };

export function attribute(name: string, value: AttributeValue): AttributeProto {
  const make = (fields: Omit<Partial<AttributeProto>, '$typeName'>) => create(AttributeProtoSchema, { name, ...fields });
  if (typeof value === 'string') return make({ type: Kind.STRING, s: bytes.encode(value) as Uint8Array<ArrayBuffer> });
  if (typeof value === 'number') {
    return Number.isInteger(value) ? make({ type: Kind.INT, i: BigInt(value) }) : make({ type: Kind.FLOAT, f: value });
  }
  if ('float' in value) return make({ type: Kind.FLOAT, f: value.float });
  if ('floats' in value) return make({ type: Kind.FLOATS, floats: [...value.floats] });
  if ('ints' in value) return make({ type: Kind.INTS, ints: value.ints.map(BigInt) });
  if ('tensor' in value) return make({ type: Kind.TENSOR, t: value.tensor });
  const strings = value.filter((v) => typeof v === 'string');
  if (strings.length > 0) return make({ type: Kind.STRINGS, strings: strings.map((s) => bytes.encode(s) as Uint8Array<ArrayBuffer>) });
  const numbers = value.filter((v) => typeof v === 'number');
  return numbers.every(Number.isInteger)
    ? make({ type: Kind.INTS, ints: numbers.map(BigInt) })
    : make({ type: Kind.FLOATS, floats: [...numbers] });
}

/** `attributeMap({ axis: 1, pads: [1, 1, 1, 1] })`, in the order of the keys. */
export function attributeMap(values: Readonly<Record<string, AttributeValue>>): Map<string, AttributeProto> {
  return new Map(Object.entries(values).map(([name, value]) => [name, attribute(name, value)]));
}
