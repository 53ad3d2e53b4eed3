/**
 * From the detector's probability map to text boxes: the post-processing of "Real-time Scene Text Detection with Differentiable Binarization"
 * (Liao et al., AAAI 2020, section 3.4): threshold, connected regions, least rectangle, and growth, because the network marks shrunken text.
 */
import { corners, grow, minimumRectangle, type Point, type TurnedRectangle } from './geometry.js';

export interface ProbabilityMap {
  /** Row-major, 0 to 1. */
  readonly values: Float32Array;
  readonly width: number;
  readonly height: number;
}

export interface BoxOptions {
  /** A pixel is text from this probability on. */
  readonly threshold: number;
  /** A region counts from this mean probability on. */
  readonly boxThreshold: number;
  /** Growth: distance = area x ratio / perimeter. */
  readonly unclipRatio: number;
  /** Regions with a side below this are noise, pixels of the map. */
  readonly minimumSide: number;
}

export const BOX_DEFAULTS: BoxOptions = { threshold: 0.3, boxThreshold: 0.6, unclipRatio: 1.8, minimumSide: 3 };

export interface TextBox {
  /** In pixels of the photo. */
  readonly rectangle: TurnedRectangle;
  /** Mean probability. */
  readonly score: number;
}

/** Connected regions (8 neighbours) of pixels at or above the threshold: of each, the pixels' indices. */
export function connectedRegions(map: ProbabilityMap, threshold: number): number[][] {
  const { values, width, height } = map;
  const seen = new Uint8Array(values.length);
  const regions: number[][] = [];
  for (let first = 0; first < values.length; first++) {
    if (seen[first] !== 0 || (values[first] ?? 0) < threshold) continue;
    seen[first] = 1;
    const region = [first];
    // `region` is the queue too: what stands behind `next` has not been looked around yet.
    for (let next = 0; next < region.length; next++) {
      const at = region[next] ?? 0;
      const x = at % width;
      const y = (at - x) / width;
      for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny++) {
        for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx++) {
          const index = ny * width + nx;
          if (seen[index] !== 0 || (values[index] ?? 0) < threshold) continue;
          seen[index] = 1;
          region.push(index);
        }
      }
    }
    regions.push(region);
  }
  return regions;
}

/** The distance by which a rectangle found in the map is grown: area x ratio / perimeter. */
export function unclipDistance(r: TurnedRectangle, ratio: number): number {
  return (r.width * r.height * ratio) / (2 * (r.width + r.height));
}

/** Boxes in pixels of a photo of the given size (the map may have another aspect), in reading order. */
export function findBoxes(
  map: ProbabilityMap,
  photo: { readonly width: number; readonly height: number },
  options = BOX_DEFAULTS,
): TextBox[] {
  const boxes: TextBox[] = [];
  const [sx, sy] = [photo.width / map.width, photo.height / map.height];
  for (const region of connectedRegions(map, options.threshold)) {
    const points = region.map((i): Point => ({ x: i % map.width, y: Math.floor(i / map.width) }));
    // Pixels are squares: a region one pixel wide has width 1, not 0.
    const rectangle = grow(minimumRectangle(points), 0.5);
    if (Math.min(rectangle.width, rectangle.height) < options.minimumSide) continue;
    const score = region.reduce((sum, i) => sum + (map.values[i] ?? 0), 0) / region.length;
    if (score < options.boxThreshold) continue;
    const grown = grow(rectangle, unclipDistance(rectangle, options.unclipRatio));
    // The two scales may differ, and then a turned rectangle is no rectangle any more: take the least one around its corners again.
    const scaled = corners(grown).map((p) => ({ x: (p.x + 0.5) * sx, y: (p.y + 0.5) * sy }));
    boxes.push({ rectangle: minimumRectangle(scaled), score });
  }
  return readingOrder(boxes);
}

/**
 * Top to bottom, a line's boxes left to right. Signs are seen askew, so two boxes share a line when the centre of the narrower stands on the
 * axis of the wider one (the angle of a short box says little), less than four heights away.
 */
export function readingOrder(boxes: readonly TextBox[]): TextBox[] {
  const lines: TextBox[][] = [];
  for (const box of [...boxes].sort((a, b) => a.rectangle.centre.y - b.rectangle.centre.y)) {
    const line = lines.find((others) => others.some((other) => shareLine(other.rectangle, box.rectangle)));
    if (line === undefined) lines.push([box]);
    else line.push(box);
  }
  return lines.flatMap((line) => line.sort((a, b) => a.rectangle.centre.x - b.rectangle.centre.x));
}

function shareLine(a: TurnedRectangle, b: TurnedRectangle): boolean {
  const [wide, narrow] = a.width >= b.width ? [a, b] : [b, a];
  const [dx, dy] = [narrow.centre.x - wide.centre.x, narrow.centre.y - wide.centre.y];
  const along = dx * Math.cos(wide.angle) + dy * Math.sin(wide.angle);
  const across = dy * Math.cos(wide.angle) - dx * Math.sin(wide.angle);
  const height = Math.min(a.height, b.height);
  return Math.abs(across) < height / 2 && Math.abs(along) - (wide.width + narrow.width) / 2 < 4 * height;
}
