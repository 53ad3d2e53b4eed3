import { describe, expect, it } from 'vitest';
import { connectedRegions, findBoxes, type ProbabilityMap, readingOrder, unclipDistance } from './boxes.js';
import { convexHull, corners, grow, minimumRectangle, type TurnedRectangle } from './geometry.js';

/** A map with rectangles of probability 0.9 drawn into it. */
function mapWith(width: number, height: number, rectangles: readonly TurnedRectangle[]): ProbabilityMap {
  const values = new Float32Array(width * height);
  for (const r of rectangles) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [dx, dy] = [x - r.centre.x, y - r.centre.y];
        const u = dx * Math.cos(r.angle) + dy * Math.sin(r.angle);
        const v = dy * Math.cos(r.angle) - dx * Math.sin(r.angle);
        if (Math.abs(u) <= r.width / 2 && Math.abs(v) <= r.height / 2) values[y * width + x] = 0.9;
      }
    }
  }
  return { values, width, height };
}

const rectangle = (x: number, y: number, width: number, height: number, angle = 0): TurnedRectangle => ({
  centre: { x, y },
  width,
  height,
  angle,
});

describe('geometry', () => {
  it('finds the hull of points and leaves the inner ones out', () => {
    const hull = convexHull([
      { x: 0, y: 0 },
      { x: 4, y: 0 },
      { x: 4, y: 2 },
      { x: 0, y: 2 },
      { x: 2, y: 1 },
      { x: 2, y: 0 },
    ]);
    expect(hull).toHaveLength(4);
  });

  it.each([-0.6, -0.2, 0, 0.1, 0.7])('finds a rectangle turned by %f again', (angle) => {
    const found = minimumRectangle(corners(rectangle(50, 40, 60, 12, angle)));
    expect(found.centre.x).toBeCloseTo(50);
    expect(found.centre.y).toBeCloseTo(40);
    expect(found.width).toBeCloseTo(60);
    expect(found.height).toBeCloseTo(12);
    expect(found.angle).toBeCloseTo(angle);
  });

  it('takes a single point and a line as rectangles without area', () => {
    expect(minimumRectangle([{ x: 3, y: 4 }])).toEqual(rectangle(3, 4, 0, 0));
    const line = minimumRectangle([
      { x: 0, y: 0 },
      { x: 3, y: 0 },
      { x: 9, y: 0 },
    ]);
    expect(line).toMatchObject({ width: 9, height: 0 });
  });
});

describe('text boxes from a probability map', () => {
  it('joins pixels that touch, also over a corner, and keeps others apart', () => {
    const values = new Float32Array(25);
    for (const i of [0, 6, 12, 4]) values[i] = 0.5;
    const regions = connectedRegions({ values, width: 5, height: 5 }, 0.3);
    expect(regions.map((r) => r.length)).toEqual([3, 1]);
  });

  it('grow by area times ratio over perimeter', () => {
    const r = rectangle(0, 0, 30, 10);
    expect(unclipDistance(r, 2)).toBeCloseTo((300 * 2) / 80);
    expect(grow(r, 3)).toMatchObject({ width: 36, height: 16 });
  });

  it('are found at their place, turned and scaled to the photo', () => {
    const map = mapWith(160, 160, [rectangle(80, 50, 90, 14, 0.2), rectangle(60, 120, 60, 10)]);
    const boxes = findBoxes(map, { width: 320, height: 160 });
    expect(boxes).toHaveLength(2);
    expect(boxes[0]?.rectangle.centre.x).toBeCloseTo(161, 0);
    expect(boxes[0]?.rectangle.centre.y).toBeCloseTo(50.5, 0);
    // Twice as wide, as high: the slope halves.
    expect(boxes[0]?.rectangle.angle).toBeCloseTo(0.1, 1);
    expect(boxes[1]?.rectangle.width).toBeGreaterThan(120);
  });

  it('leave out faint regions and specks', () => {
    const map = mapWith(100, 100, [rectangle(50, 50, 40, 10)]);
    const faint = { ...map, values: map.values.map((v) => v * 0.5) };
    expect(findBoxes(faint, { width: 100, height: 100 })).toEqual([]);
    expect(findBoxes(mapWith(100, 100, [rectangle(50, 50, 1, 1)]), { width: 100, height: 100 })).toEqual([]);
  });

  it('are read line by line though the sign is askew', () => {
    const slope = -0.08;
    const boxes = [
      rectangle(205, 100 + 165 * slope, 40, 30),
      rectangle(40, 100, 80, 30, slope),
      rectangle(180, 140, 200, 30),
      rectangle(900, 90, 100, 30),
    ];
    const order = readingOrder(boxes.map((r) => ({ rectangle: r, score: 1 }))).map((b) => b.rectangle.centre.x);
    expect(order.indexOf(40) + 1).toBe(order.indexOf(205));
    expect(order.indexOf(180)).toBe(3);
  });
});
