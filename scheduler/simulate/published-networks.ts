/**
 * The networks of Musical Chair (Hadidi et al., 2018 and 2020) and how they seated them, for simulation: the mappings as published, the times as published
 * (devices/published.ts), nothing fitted to the speeds that they report.
 */
import type { Model } from '../../models/model.js';
import { drawZoo } from '../../models/zoo/index.js';
import { Sketch } from '../../models/zoo/sketch.js';
import { structureOf } from '../../models/zoo/structure.js';
import { denseMs } from '../devices/profile.js';
import { PI3_2018 } from '../devices/published.js';
import type { Task, TaskGraph } from './tasks.js';

/** Units `[from, end)` (layers with weights, or tasks) on so many replicas, or divided into so many parts. `on`: on the device of that stage; default its own. */
export interface MappedStage {
  readonly units: readonly [number, number];
  readonly replicas?: number;
  readonly parts?: number;
  readonly on?: number;
}

/** 48, 128, 192, 192 and 128 filters, one tower, without groups and normalisation: the convolutions whose times are published. */
export function drawAlexNet2018(): Sketch {
  const net = new Sketch('alexnet-2018', 227, 1);
  const conv = (x: string, channels: number, kernel: number, pad: number, stride = 1): string =>
    net.relu(net.conv(x, channels, { kernel, pad, stride }));
  let x = net.maxPool(conv('image', 48, 11, 0, 4), 3, 2);
  x = net.maxPool(conv(x, 128, 5, 2), 3, 2);
  x = conv(conv(x, 192, 3, 1), 192, 3, 1);
  x = net.flatten(net.maxPool(conv(x, 128, 3, 1), 3, 2));
  x = net.relu(net.fc(net.relu(net.fc(x, 4096)), 4096));
  net.softmax(net.fc(x, 1000));
  return net;
}

export const ALEXNET: Model = structureOf(drawAlexNet2018());
export const VGG16: Model = structureOf(drawZoo('vgg16'));

/** Layers of AlexNet: five convolutions, three fully connected layers. Device A, the input, is the gateway. */
export const ALEXNET_MAPPINGS = {
  5: [{ units: [0, 5] }, { units: [5, 6], parts: 2 }, { units: [6, 8] }],
  6: [{ units: [0, 5], replicas: 2 }, { units: [5, 6], parts: 2 }, { units: [6, 8] }],
} as const satisfies { [devices: number]: readonly MappedStage[] };

/** Layers of VGG16: thirteen convolutions (2, 2, 3, 3, 3), three fully connected layers. */
export const VGG16_MAPPINGS = {
  9: [{ units: [0, 2] }, { units: [2, 10], replicas: 3 }, { units: [10, 13] }, { units: [13, 14], parts: 2 }, { units: [14, 16] }],
  11: [{ units: [0, 13], replicas: 7 }, { units: [13, 14], parts: 2 }, { units: [14, 16] }],
} as const satisfies { [devices: number]: readonly MappedStage[] };

function dense(name: string, reads: readonly string[], inputs: number, outputs: number): Task {
  const ms = (parts: number): number => denseMs(PI3_2018.dense, [], inputs, outputs / parts);
  return { name, reads, values: outputs, weightBytes: 4 * inputs * outputs, ms: ms(1), partMs: ms };
}

const { spatialStream, temporalStream, pyramidMaxPool } = PI3_2018.tasks;

/** 5x5 and two 3x3 convolutions of 256 filters over so many planes. */
const streamBytes = (planes: number): number => 4 * 256 * (25 * planes + 2 * 9 * 256);

/** Two-stream action recognition: recording and optical flow (no time is published) are the gateway's. The pools keep the last 15 frames. */
export const ACTION: TaskGraph = {
  inputs: [
    { name: 'picture', values: 16 * 12 * 3 },
    { name: 'flow', values: 16 * 12 * 20 },
  ],
  tasks: [
    { name: 'spatial', reads: ['picture'], values: 256, weightBytes: streamBytes(3), ms: 1000 * spatialStream },
    { name: 'temporal', reads: ['flow'], values: 256, weightBytes: streamBytes(20), ms: 1000 * temporalStream },
    // One pyramid for each stream.
    { name: 'pool', reads: ['spatial', 'temporal'], values: 7680, weightBytes: 0, ms: 2000 * pyramidMaxPool },
    dense('fc1', ['pool'], 7680, 8192),
    dense('fc2', ['fc1'], 8192, 8192),
    dense('fc3', ['fc2'], 8192, 51),
  ],
};

const halves = (streams: number): readonly MappedStage[] => [
  { units: [0, 1], replicas: streams },
  { units: [1, 2], replicas: streams },
  { units: [2, 3] },
  { units: [3, 4], parts: 2 },
  { units: [4, 5], parts: 2 },
  // Where the last layer ran is not published.
  { units: [5, 6], on: 2 },
];

export const ACTION_MAPPINGS: { readonly [devices: number]: readonly MappedStage[] } = {
  5: [{ units: [0, 1] }, { units: [1, 2] }, { units: [2, 4] }, { units: [4, 6] }],
  8: halves(1),
  10: halves(2),
  12: halves(3),
};

export const REPORTED = {
  source: 'Hadidi et al., 2018 (arXiv 1802.02138; RA-L 2018)',
  action: { 1: 0.02, 5: 1.67, 8: 7.69, 10: 9.09, 12: 10.0 },
  alexnet: { 5: 4.3, 6: 5.7 },
  vgg16: { 9: 0.48, 11: 1.11 },
  /** IoT-J 2020: pipeline, earlier method, new method. */
  alexnet2020: { 4: [3.2, 4.1, 6.8], 6: [3.5, 5.8, 9.2] },
  vgg162020: { 8: [0.2, 0.5, 0.86], 10: [0.18, 0.85, 1.07] },
} as const;
