/** Points and rectangles in the plane, x to the right and y down, pixels. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** A rectangle turned by `angle` (radians, clockwise on the screen); `width` runs along the angle. */
export interface TurnedRectangle {
  readonly centre: Point;
  readonly width: number;
  readonly height: number;
  readonly angle: number;
}

/** Convex hull, counter-clockwise in a y-up plane, without repeated points (Andrew's monotone chain). */
export function convexHull(points: readonly Point[]): Point[] {
  const sorted = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const half = (list: readonly Point[]): Point[] => {
    const chain: Point[] = [];
    for (const p of list) {
      while (chain.length >= 2 && turn(chain.at(-2), chain.at(-1), p) <= 0) chain.pop();
      chain.push(p);
    }
    return chain.slice(0, -1);
  };
  const hull = [...half(sorted), ...half([...sorted].reverse())];
  return hull.length === 0 ? sorted.slice(0, 1) : hull;
}

function turn(a: Point | undefined, b: Point | undefined, c: Point): number {
  if (a === undefined || b === undefined) return 1;
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

/**
 * The rectangle of least area around points. One of its sides lies on an edge of the hull (Freeman and Shapira 1975), so every edge is tried.
 * `angle` is in (-pi/4, pi/4], so that `width` is the side nearest to horizontal.
 */
export function minimumRectangle(points: readonly Point[]): TurnedRectangle {
  const hull = convexHull(points);
  let best = boundsAt(hull, 0);
  for (let i = 0; i < hull.length; i++) {
    const a = hull[i];
    const b = hull[(i + 1) % hull.length];
    if (a === undefined || b === undefined || hull.length < 3) continue;
    const bounds = boundsAt(hull, Math.atan2(b.y - a.y, b.x - a.x));
    if (bounds.width * bounds.height < best.width * best.height - 1e-9) best = bounds;
  }
  return best;
}

/** The bounding rectangle whose sides run along `direction`, with the angle brought near to horizontal. */
function boundsAt(points: readonly Point[], direction: number): TurnedRectangle {
  // A quarter turn changes nothing but which side is called width.
  const angle = direction - Math.round(direction / (Math.PI / 2)) * (Math.PI / 2);
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const p of points) {
    const u = p.x * cos + p.y * sin;
    const v = p.y * cos - p.x * sin;
    left = Math.min(left, u);
    right = Math.max(right, u);
    top = Math.min(top, v);
    bottom = Math.max(bottom, v);
  }
  const [u, v] = [(left + right) / 2, (top + bottom) / 2];
  return { centre: { x: u * cos - v * sin, y: u * sin + v * cos }, width: right - left, height: bottom - top, angle };
}

/** Corners: top left, top right, bottom right, bottom left, as seen along the angle. */
export function corners(r: TurnedRectangle): [Point, Point, Point, Point] {
  const cos = Math.cos(r.angle);
  const sin = Math.sin(r.angle);
  const at = (u: number, v: number): Point => ({ x: r.centre.x + u * cos - v * sin, y: r.centre.y + u * sin + v * cos });
  const [w, h] = [r.width / 2, r.height / 2];
  return [at(-w, -h), at(w, -h), at(w, h), at(-w, h)];
}

/** The rectangle with each side moved outwards by `distance`. */
export function grow(r: TurnedRectangle, distance: number): TurnedRectangle {
  return { ...r, width: Math.max(0, r.width + 2 * distance), height: Math.max(0, r.height + 2 * distance) };
}
