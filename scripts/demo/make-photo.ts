/**
 * Makes scripts/demo/photo.jpg: a café front in the evening sun, drawn as vectors in perspective, then given a lens, a sensor and a JPEG encoder.
 * Run with `npx tsx scripts/demo/make-photo.ts`. The same seed gives the same picture.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { createRandom } from '../../models/random.js';
import type { Point } from './geometry.js';
import { type FontName, textPath, textWidth } from './lettering.js';

const WIDTH = 1280;
const HEIGHT = 960;

const random = createRandom(2018);
const between = (low: number, high: number): number => low + (high - low) * random();

/** A board of `width` x `height` seen in perspective: its corners (top left, clockwise) stand at `quad`. Heckbert 1989, section 2.2.3. */
class Board {
  readonly width: number;
  readonly height: number;
  readonly map: (p: Point) => Point;

  constructor(width: number, height: number, quad: readonly [Point, Point, Point, Point]) {
    this.width = width;
    this.height = height;
    const [p0, p1, p2, p3] = quad;
    const [dx1, dx2, sx] = [p1.x - p2.x, p3.x - p2.x, p0.x - p1.x + p2.x - p3.x];
    const [dy1, dy2, sy] = [p1.y - p2.y, p3.y - p2.y, p0.y - p1.y + p2.y - p3.y];
    const det = dx1 * dy2 - dx2 * dy1;
    const g = (sx * dy2 - dx2 * sy) / det;
    const h = (dx1 * sy - sx * dy1) / det;
    this.map = ({ x, y }) => {
      const [u, v] = [x / width, y / height];
      const w = g * u + h * v + 1;
      return {
        x: ((p1.x - p0.x + g * p1.x) * u + (p3.x - p0.x + h * p3.x) * v + p0.x) / w,
        y: ((p1.y - p0.y + g * p1.y) * u + (p3.y - p0.y + h * p3.y) * v + p0.y) / w,
      };
    };
  }

  polygon(points: readonly (readonly [number, number])[], style: string): string {
    const mapped = points.map(([x, y]) => this.map({ x, y }));
    return `<polygon points="${mapped.map((p) => `${p.x.toFixed(1)},${p.y.toFixed(1)}`).join(' ')}" ${style}/>`;
  }

  box(x: number, y: number, w: number, h: number, style: string): string {
    return this.polygon(
      [
        [x, y],
        [x + w, y],
        [x + w, y + h],
        [x, y + h],
      ],
      style,
    );
  }

  /** A line of text; `align` 0 starts at x, 0.5 is centred on it, 1 ends there. */
  text(font: FontName, text: string, x: number, baseline: number, size: number, style: string, align = 0): string {
    const start = x - textWidth(font, text, size) * align;
    return `<path d="${textPath(font, text, start, baseline, size, this.map)}" ${style}/>`;
  }
}

const SERIF: FontName = 'playfair-display-latin-700-normal';
const NARROW: FontName = 'barlow-condensed-latin-600-normal';
const SANS: FontName = 'inter-latin-600-normal';

function tone(base: readonly [number, number, number], spread: number): string {
  const shift = between(-spread, spread);
  return `rgb(${base.map((c) => Math.round(Math.min(255, Math.max(0, c + shift + between(-5, 5))))).join(',')})`;
}

function brickWall(): string {
  const out = [`<rect width="${WIDTH}" height="800" fill="#6d6159"/>`];
  for (let row = 0, y = 0; y < 800; row++, y += 27) {
    for (let x = row % 2 === 0 ? -40 : -4; x < WIDTH; x += 74) {
      const shape = `x="${(x + between(-1, 1)).toFixed(1)}" y="${(y + between(-0.7, 0.7)).toFixed(1)}" width="70" height="23.5" rx="2"`;
      out.push(`<rect ${shape} fill="${tone([131, 72, 56], 17)}"/>`);
    }
  }
  return out.join('');
}

function pavement(): string {
  const out = ['<rect y="778" width="1280" height="182" fill="#55504c"/>'];
  const ground = new Board(16, 5, [
    { x: -120, y: 786 },
    { x: 1400, y: 786 },
    { x: 2000, y: 1010 },
    { x: -720, y: 1010 },
  ]);
  for (let row = 0; row < 5; row++) {
    for (let col = -1; col < 16; col++) {
      out.push(ground.box(col + (row % 2) * 0.5 + 0.02, row + 0.03, 0.95, 0.93, `fill="${tone([139, 131, 122], 11)}"`));
    }
  }
  return `${out.join('')}<rect y="770" width="1280" height="20" fill="#4a4643"/><rect y="768" width="1280" height="5" fill="#8d857d"/>`;
}

/** The shop window on the right, warm light and people's lamps behind the glass. */
function shopWindow(): string {
  const out = [
    '<rect x="664" y="262" width="548" height="470" rx="4" fill="#23362f"/><rect x="684" y="282" width="508" height="430" fill="url(#glow)"/>',
  ];
  for (let i = 0; i < 26; i++) {
    const [x, y, r] = [between(700, 1180), between(300, 560), between(7, 26)];
    const colour = ['#ffd98a', '#ffb75e', '#fff0c4', '#ff9d5c'][Math.floor(random() * 4)];
    out.push(
      `<circle cx="${x.toFixed(0)}" cy="${y.toFixed(0)}" r="${r.toFixed(0)}" fill="${colour}" opacity="${between(0.12, 0.4).toFixed(2)}" filter="url(#soft)"/>`,
    );
  }
  // A counter, two guests and a lamp, all out of focus.
  out.push('<g filter="url(#blur)"><rect x="684" y="610" width="508" height="102" fill="#3b2417"/>');
  out.push('<circle cx="790" cy="540" r="27" fill="#3a241a"/><path d="M738 640q52-110 104 0z" fill="#5b2f2a"/>');
  out.push('<circle cx="1068" cy="530" r="29" fill="#2d1d17"/><path d="M1010 640q58-124 116 0z" fill="#2b3c4b"/>');
  out.push('<path d="M938 282v70m-46 44q0-46 46-46t46 46z" stroke="#201510" stroke-width="4" fill="#e8a33d"/></g>');
  out.push(
    '<path d="M684 282h200l-150 430h-50z" fill="#ffffff" opacity=".07"/><path d="M960 282h60l-150 430h-60z" fill="#ffffff" opacity=".06"/>',
  );
  out.push(
    '<rect x="934" y="282" width="10" height="430" fill="#23362f" opacity=".0"/><rect x="652" y="728" width="572" height="20" rx="3" fill="#2e463d"/>',
  );
  const glass = new Board(508, 430, [
    { x: 684, y: 282 },
    { x: 1192, y: 284 },
    { x: 1192, y: 712 },
    { x: 684, y: 712 },
  ]);
  const white = 'fill="#fdf6e3" opacity=".95"';
  out.push(glass.text(SERIF, 'Fresh Coffee', 254, 196, 68, white, 0.5), glass.text(SANS, 'BREAD  &  CAKES', 254, 258, 34, white, 0.5));
  out.push(glass.text(NARROW, 'Open daily 8:00  to  18:30', 254, 322, 38, white, 0.5));
  return out.join('');
}

/** The long board over the shop, a little turned, and a striped awning. */
function signBoard(): string {
  const sign = new Board(1000, 130, [
    { x: 118, y: 62 },
    { x: 1166, y: 34 },
    { x: 1170, y: 166 },
    { x: 116, y: 184 },
  ]);
  const out = [sign.box(8, 14, 1000, 130, 'fill="#000" opacity=".45" filter="url(#soft)"')];
  out.push(sign.box(0, 0, 1000, 130, 'fill="#1f4a3d"'), sign.box(9, 9, 982, 112, 'fill="none" stroke="#d9b25f" stroke-width="3"'));
  out.push(
    sign.text(SERIF, 'The Musical Chair', 502, 92, 80, 'fill="#0d241d"', 0.5),
    sign.text(SERIF, 'The Musical Chair', 500, 89, 80, 'fill="url(#gold)"', 0.5),
  );
  for (let i = 0; i < 14; i++) {
    const [x, w] = [640 + i * 42, 42];
    const colour = i % 2 === 0 ? '#b23a30' : '#efe3cd';
    out.push(
      `<path d="M${x + 6} 196h${w}l6 62q-21 26-${w} 0z" fill="${colour}"/><path d="M${x + 6} 196h${w}l1 14h-${w}z" fill="#000" opacity=".18"/>`,
    );
  }
  out.push('<rect x="640" y="262" width="600" height="30" fill="#000" opacity=".35" filter="url(#soft)"/>');
  return out.join('');
}

/** The chalkboard on the pavement: leaning, seen from the right. */
function chalkboard(): string {
  const board = new Board(400, 520, [
    { x: 148, y: 330 },
    { x: 520, y: 306 },
    { x: 560, y: 852 },
    { x: 118, y: 884 },
  ]);
  const out = ['<ellipse cx="352" cy="880" rx="290" ry="30" fill="#000" opacity=".5" filter="url(#soft)"/>'];
  out.push('<path d="M512 316l74 492 17-4-78-490z" fill="#3a2413"/>');
  out.push(
    board.box(-4, -4, 408, 540, 'fill="#7a4c25"'),
    board.box(4, 4, 392, 512, 'fill="#8f5c30"'),
    board.box(22, 22, 356, 470, 'fill="url(#slate)"'),
  );
  for (let i = 0; i < 34; i++) {
    const [x, y, w] = [between(26, 300), between(30, 480), between(18, 70)];
    out.push(
      board.polygon(
        [
          [x, y],
          [x + w, y - between(2, 12)],
          [x + w, y + between(0, 8)],
          [x, y + between(2, 12)],
        ],
        `fill="#fff" opacity="${between(0.01, 0.045).toFixed(3)}" filter="url(#soft)"`,
      ),
    );
  }
  const chalk = 'fill="#f4f1e8" opacity=".94"';
  const warm = 'fill="#f6d98b" opacity=".95"';
  out.push(board.text(SERIF, "Today's Menu", 200, 84, 50, warm, 0.5), board.box(70, 102, 260, 2.5, 'fill="#f6d98b" opacity=".7"'));
  const dishes = [
    ['Tomato soup', '4.50'],
    ['Mushroom risotto', '9.80'],
    ['Grilled sea bass', '14.20'],
    ['Apple pie', '3.90'],
  ] as const;
  dishes.forEach(([dish, price], i) => {
    const y = 158 + i * 62;
    out.push(board.text(NARROW, dish, 40, y, 39, chalk), board.text(NARROW, price, 362, y, 39, warm, 1));
  });
  out.push(board.box(70, 376, 260, 2, 'fill="#f4f1e8" opacity=".5"'));
  out.push(
    board.text(SANS, 'PLEASE  TAKE  A  SEAT', 200, 420, 26, chalk, 0.5),
    board.text(NARROW, 'before the music stops', 200, 464, 33, warm, 0.5),
  );
  return out.join('');
}

/** A wooden chair, and the street's number and name. */
function chairAndPlates(): string {
  const wood = 'fill="none" stroke="#5a3317" stroke-width="13" stroke-linecap="round"';
  const light = 'fill="none" stroke="#8a5528" stroke-width="4" stroke-linecap="round"';
  const parts =
    'M742 610q4 100 6 262M858 604q0 90 2 250M742 612q58-26 116-8M748 650q56-18 110-8M750 690q54-14 108-6M746 742l112-10M714 902l36-160M884 886l-26-154M712 778l178-14';
  const out = [
    '<g transform="translate(372 112) scale(.88)"><ellipse cx="806" cy="890" rx="130" ry="20" fill="#000" opacity=".42" filter="url(#soft)"/>',
    `<path d="${parts}" ${wood}/><path d="${parts}" ${light}/>`,
  ];
  out.push('<path d="M736 740l130-12 32 38-196 18z" fill="#7b4a20"/><path d="M736 740l130-12 6 7-142 13z" fill="#a06a36"/></g>');
  const plate = new Board(240, 74, [
    { x: 372, y: 216 },
    { x: 606, y: 210 },
    { x: 607, y: 276 },
    { x: 373, y: 284 },
  ]);
  out.push(plate.box(4, 6, 240, 74, 'fill="#000" opacity=".4" filter="url(#soft)"'), plate.box(0, 0, 240, 74, 'fill="#21467e"'));
  out.push(
    plate.box(5, 5, 230, 64, 'fill="none" stroke="#f3f3ee" stroke-width="2.5"'),
    plate.text(NARROW, 'STATION STREET  42', 120, 47, 29, 'fill="#f3f3ee"', 0.5),
  );
  return out.join('');
}

function scene(): string {
  const gradients = `
    <linearGradient id="glow" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#5a3b1c"/><stop offset=".45" stop-color="#8a5a28"/><stop offset="1" stop-color="#3a2413"/></linearGradient>
    <linearGradient id="gold" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#fbe7a8"/><stop offset="1" stop-color="#cf9f45"/></linearGradient>
    <linearGradient id="slate" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="#343a3a"/><stop offset="1" stop-color="#1f2424"/></linearGradient>
    <linearGradient id="sun" x1="0" y1="0" x2="1" y2=".75"><stop offset="0" stop-color="#ffdf9e" stop-opacity=".34"/><stop offset=".5" stop-color="#ffcf8a" stop-opacity=".05"/><stop offset="1" stop-color="#101a38" stop-opacity=".42"/></linearGradient>
    <radialGradient id="corners" cx=".5" cy=".5" r=".75"><stop offset=".55" stop-color="#000" stop-opacity="0"/><stop offset="1" stop-color="#000" stop-opacity=".5"/></radialGradient>
    <filter id="soft" x="-50%" y="-50%" width="200%" height="200%"><feGaussianBlur stdDeviation="7"/></filter>
    <filter id="blur" x="-20%" y="-20%" width="140%" height="140%"><feGaussianBlur stdDeviation="4.5"/></filter>`;
  const light = '<rect width="1280" height="960" fill="url(#sun)"/><rect width="1280" height="960" fill="url(#corners)"/>';
  const parts = [brickWall(), pavement(), shopWindow(), signBoard(), chairAndPlates(), chalkboard(), light];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}"><defs>${gradients}</defs>${parts.join('')}</svg>`;
}

/** Sensor noise: grain that grows in the shadows, the sum of three uniforms being near enough to a Gaussian. */
function addNoise(rgb: Uint8Array): void {
  for (let i = 0; i < rgb.length; i += 3) {
    const light = ((rgb[i] ?? 0) + (rgb[i + 1] ?? 0) + (rgb[i + 2] ?? 0)) / 3;
    const sigma = 7.5 - light / 55;
    const grain = (random() + random() + random() - 1.5) * 2 * sigma;
    for (let c = 0; c < 3; c++) rgb[i + c] = Math.min(255, Math.max(0, (rgb[i + c] ?? 0) + grain + (random() - 0.5) * sigma));
  }
}

/** The picture's bytes, JPEG. */
export async function makePhoto(): Promise<Buffer> {
  const drawn = await sharp(Buffer.from(scene())).removeAlpha().blur(0.7).raw().toBuffer();
  addNoise(drawn);
  return sharp(drawn, { raw: { width: WIDTH, height: HEIGHT, channels: 3 } })
    .jpeg({ quality: 86, chromaSubsampling: '4:2:0' })
    .toBuffer();
}

const file = fileURLToPath(new URL('./photo.jpg', import.meta.url));
const bytes = await makePhoto();
writeFileSync(file, bytes);
console.log(`${file}: ${WIDTH} x ${HEIGHT}, ${bytes.length} bytes`);
