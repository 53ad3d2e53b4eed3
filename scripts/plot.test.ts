import { describe, expect, it } from 'vitest';
import { type PlotSpec, plotSvg } from './plot.js';

const spec: PlotSpec = {
  title: 'Time & parts',
  x: { label: 'parts', ticks: [1, 2, 4] },
  y: { label: 'time, ms' },
  panels: [
    {
      title: 'conv1 <relu>',
      series: [
        { name: 'rows', points: [1, 2, 4].map((x) => ({ x, y: 100 / x, low: 90 / x, high: 110 / x })) },
        { name: 'ideal', dashed: true, points: [1, 2, 4].map((x) => ({ x, y: 90 / x })) },
      ],
      rules: [{ y: 20, label: 'target' }],
    },
    { title: 'conv2', series: [{ name: 'rows', points: [{ x: 1, y: 10 }] }] },
  ],
};

describe('plotSvg', () => {
  it('draws one panel per entry, one legend for all, and escapes what people wrote', async () => {
    const svg = await plotSvg(spec);
    expect(svg.match(/<svg /g)).toHaveLength(3);
    expect(svg).toContain('Time &amp; parts');
    expect(svg).toContain('conv1 &lt;relu&gt;');
    expect(svg.match(/>rows</g)).toHaveLength(1);
    expect(svg).toContain('>target<');
  });

  it('needs nothing of the viewer: no stylesheet, no currentColor, no script', async () => {
    expect(await plotSvg(spec)).not.toMatch(/<style|currentColor|<script/);
  });

  it('says the same of the same data', async () => {
    expect(await plotSvg(spec)).toBe(await plotSvg(spec));
  });

  it('puts a point that is twice as high twice as far from the zero line', async () => {
    const points = [0, 50, 100].map((y, x) => ({ x, y }));
    const svg = await plotSvg({ ...spec, panels: [{ title: '', series: [{ name: 'a', points }] }] });
    const heights = [...svg.matchAll(/<circle r="2.8" cy="([^"]+)"/g)].map((m) => Number(m[1]));
    expect(heights).toHaveLength(3);
    const [zero = 0, half = 0, full = 0] = heights;
    expect((zero - full) / (zero - half)).toBeCloseTo(2, 6);
  });

  it('tells series apart by the shape of their dots, too, in panels and legend alike', async () => {
    const points = [1, 2].map((x) => ({ x, y: x }));
    const series = ['a', 'b', 'c'].map((name) => ({ name, points }));
    const svg = await plotSvg({ ...spec, panels: [{ title: '', series }] });
    // Of a: two circles and the legend's; of b and c: shapes of their own.
    expect(svg.match(/<circle /g)).toHaveLength(3);
    expect(svg).toContain('M-3,-3h6v6h-6z');
    expect(svg).toContain('M0,-4.2l3.8,6.6h-7.6z');
    const hollow = await plotSvg({
      ...spec,
      panels: [{ title: '', series: [{ name: 'p', mark: 'points', dashed: true, points }, ...series] }],
    });
    expect(hollow.match(/<circle /g)).toHaveLength(3);
  });

  it('keeps bars in the order they came in, not that of the alphabet', async () => {
    const bars = ['z', 'a'].map((x) => ({ x, y: 1 }));
    const series = ['one', 'two'].map((name) => ({ name, mark: 'bars' as const, points: bars }));
    const svg = await plotSvg({ ...spec, panels: [{ title: '', series }] });
    expect(svg.indexOf('>z<')).toBeGreaterThan(0);
    expect(svg.indexOf('>z<')).toBeLessThan(svg.indexOf('>a<'));
  });

  it('writes above each bar what it shows, and begins the palette with the first series that has no colour of its own', async () => {
    const points = ['a', 'b'].map((x, i) => ({ x, y: 12.345 * (i + 1) }));
    const svg = await plotSvg({ ...spec, panels: [{ title: '', series: [{ name: 'n', mark: 'bars', points }] }] });
    expect(svg).toContain('>12.3<');
    expect(svg).toContain('>24.7<');
    const line = [1, 2].map((x) => ({ x, y: x }));
    const series = [
      { name: 'bound', color: 'grey', dashed: true, points: line },
      { name: 'own', points: line },
    ];
    expect(await plotSvg({ ...spec, panels: [{ title: '', series }] })).toContain('stroke="#0072b2"');
  });

  it('leaves out what a log scale cannot show, and survives a plot without points', async () => {
    const points = [0, 1, 1000].map((y, x) => ({ x, y }));
    const svg = await plotSvg({ ...spec, y: { label: 'y', scale: 'log' }, panels: [{ title: '', series: [{ name: 'a', points }] }] });
    expect(svg.match(/r="2.8"/g)).toHaveLength(2);
    expect(svg).not.toContain('NaN');
    expect(await plotSvg({ ...spec, panels: [{ title: 'empty', series: [] }] })).toContain('empty');
  });
});
