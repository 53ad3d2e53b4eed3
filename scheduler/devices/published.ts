/**
 * Published figures of devices, as they were published: nothing here was measured by this project, and nothing is fitted to what a cluster reached.
 * What is made of them stands in profile.ts.
 */

/** A fully connected layer, seconds. */
export interface DenseFigure {
  readonly inputs: number;
  readonly outputs: number;
  readonly seconds: number;
}

/** A convolution (one group of it), or several together. */
export interface ConvFigure {
  readonly name: string;
  readonly kernel: number;
  readonly macs: number;
  readonly seconds: number;
}

/** A whole network, known by its size: `macs` and `params` as published with it. */
export interface NetworkFigure {
  readonly name: string;
  readonly macs: number;
  readonly params: number;
  readonly ms: number;
}

/** A message of `bytes`: latency + bytes / rate. */
export interface LinkFigure {
  readonly bytesPerSecond: number;
  readonly latencyMs: number;
  readonly source: string;
}

const MBIT = 1e6 / 8;

/** Names that a device file may give as a link. */
export const PUBLISHED_LINKS = {
  /** "t = 0.0002 d + 0.002 s, d in kB": the communication cost that their assignment is given. */
  'regression-2018': { bytesPerSecond: 1000 / 0.0002, latencyMs: 2, source: 'Hadidi et al. 2018: t = 0.0002 d + 0.002 s, d in kB' },
  'wifi-2018': { bytesPerSecond: 62.24 * MBIT, latencyMs: 8.83, source: 'Hadidi et al., RA-L 2018: 62.24 Mbit/s, 8.83 ms for 64 bytes' },
  'ethernet-2020': { bytesPerSecond: 94.1 * MBIT, latencyMs: 0.3, source: 'Hadidi et al., IoT-J 2020: 94.1 Mbit/s, 0.3 ms' },
  /** Nominal, not a measurement. */
  gigabit: { bytesPerSecond: 1000 * MBIT, latencyMs: 1, source: 'nominal: 1 Gbit/s, 1 ms' },
} as const satisfies Record<string, LinkFigure>;

export type PublishedLink = keyof typeof PUBLISHED_LINKS;

/**
 * Raspberry Pi 3 (1.2 GHz quad A53, 1 GB), Keras 2.1 on TensorFlow 1.5: public records of the authors of Musical Chair (Hadidi et al., 2018;
 * arXiv 1802.02138). The jump after 12,288 outputs is swap.
 */
export const PI3_2018 = {
  source: 'Hadidi et al. 2018, Raspberry Pi 3, Keras 2.1 / TensorFlow 1.5',
  dense: [
    [256, 0.02],
    [512, 0.031],
    [1024, 0.042],
    [2048, 0.071],
    [4096, 0.159],
    [5120, 0.209],
    [7168, 0.302],
    [8192, 0.418],
    [10_240, 0.488],
    [12_288, 0.554],
    [14_336, 1.128],
    [16_384, 1.938],
  ].map(([outputs = 0, seconds = 0]): DenseFigure => ({ inputs: 7680, outputs, seconds })),
  /** The first fully connected layer of VGG16: 411 MB of weights, far into swap. */
  denseExact: [{ inputs: 25_088, outputs: 4096, seconds: 2.48 }] satisfies readonly DenseFigure[],
  /** The five convolutions of an AlexNet of 48/128/192/192/128 filters at 55, 27 and 13 pixels; and the thirteen of VGG16 together. */
  convolutions: [
    { name: 'AlexNet conv1', kernel: 11, macs: 55 * 55 * 48 * 3 * 121, seconds: 0.063 },
    { name: 'AlexNet conv2', kernel: 5, macs: 27 * 27 * 128 * 48 * 25, seconds: 0.057 },
    { name: 'AlexNet conv3', kernel: 3, macs: 13 * 13 * 192 * 128 * 9, seconds: 0.024 },
    { name: 'AlexNet conv4', kernel: 3, macs: 13 * 13 * 192 * 192 * 9, seconds: 0.034 },
    { name: 'AlexNet conv5', kernel: 3, macs: 13 * 13 * 128 * 192 * 9, seconds: 0.025 },
  ] satisfies readonly ConvFigure[],
  /** 15.35 GMAC in thirteen layers: on average 1.18 GMAC each. */
  vgg16Convolutions: { name: 'VGG16 convolutions', kernel: 3, macs: 15_346_630_656, layers: 13, seconds: 7.29 },
  /** Whole tasks, seconds; for simulations of the published task graphs. */
  tasks: {
    alexnet: 0.52,
    vgg16Convolutions: 7.29,
    vgg16Fc1: 2.48,
    temporalStream: 0.199,
    spatialStream: 0.192,
    pyramidMaxPool: 0.0052,
    denseHalf: 0.728,
  },
  /** Larger layers swap: 10,240 outputs of 7,680 inputs, float32. */
  largestWeightsBytes: 7680 * 10_240 * 4,
  /** 7,680 -> 8,192 -> 8,192 -> 51 needs about 1.5 GB in their runtime, three times its weights: it does not fit 1 GB. */
  denseFullBytes: 1.5e9,
} as const;

/** Published averages of ncnn on four threads, ms. */
export const NCNN_4_THREADS = {
  source: 'published averages of ncnn, 4 threads',
  networks: [
    { name: 'MobileNetV2', macs: 300.8e6, params: 3.505e6, pi4: 61.9, pi5: 10.5 },
    { name: 'ResNet18', macs: 1.814e9, params: 11.69e6, pi4: 123, pi5: 20 },
    { name: 'ResNet50', macs: 4.089e9, params: 25.56e6, pi4: 263, pi5: 46.2 },
    { name: 'VGG16', macs: 15.47e9, params: 138.36e6, pi4: 547, pi5: 129 },
    { name: 'AlexNet', macs: 724.4e6, params: 60.97e6, pi4: 76.4, pi5: 21.4 },
  ],
} as const;
