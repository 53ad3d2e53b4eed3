import { describe, expect, it } from 'vitest';
import { blankProse, checkArrows, importsOf, readSources } from './check-arrows.js';
import { PACKAGE_ROOT } from './package-root.js';

const messagesOf = (path: string, text: string) => checkArrows([{ path, text }]).map((v) => v.message);

describe('import arrows', () => {
  it('hold in this checkout', () => {
    expect(checkArrows(readSources(PACKAGE_ROOT))).toEqual([]);
  });

  it('see imports of every form, and none in comments or templates', () => {
    const text = [
      "import { a } from './a.js';",
      "import './b.js';",
      "export * from './c.js';",
      "import {\n  d,\n} from './d.js';",
      "const e = await import('./e.js');",
      "// import './no.js';",
      "/* import './no.js' */",
      "const s = `import './no.js'`;",
      "type F = import('./f.js').F;",
      "const url = 'https://x'; import './g.js';",
    ].join('\n');
    expect(importsOf(text).map((i) => i.specifier)).toEqual(['./a.js', './b.js', './c.js', './d.js', './e.js', './f.js', './g.js']);
    expect(importsOf(text)[3]?.line).toBe(6);
  });

  it('keep lines when comments are blanked', () => {
    expect(blankProse("a /* x\ny */ b // it's\nc").split('\n')).toHaveLength(3);
    expect(blankProse("don't // it's\nimport './a.js'")).toContain("import './a.js'");
  });

  it('refuse what points the wrong way', () => {
    expect(messagesOf('models/cut.ts', "import '../broker/codec.js';")[0]).toContain('models/ may import only');
    expect(messagesOf('models/cut.ts', "import '../broker/tensor.js';")).toEqual([]);
    expect(messagesOf('broker/codec.ts', "import '../models/model.js';")[0]).toContain('nothing else of ours');
    expect(messagesOf('node-agent/agent.ts', "import '../scheduler/gateway.js';")[0]).toContain('node-agent/ may import');
    expect(messagesOf('node-agent/agent.ts', "import '../models/slicing/cut.js';")[0]).toContain('node-agent/ may import');
    expect(messagesOf('node-agent/agent.ts', "import '../models/engine/engine.js';")).toEqual([]);
    expect(messagesOf('scheduler/x.ts', "import '../node-agent/agent.js';")[0]).toContain('scheduler/ may import');
    expect(messagesOf('broker/lanes/lanes.ts', "import '../../scripts/cli.js';")[0]).toContain('broker/ may import');
  });

  it('let a third-party package enter in one place only', () => {
    expect(messagesOf('scheduler/client.ts', "import mqtt from 'mqtt';")[0]).toContain('mqtt may enter only');
    expect(messagesOf('broker/mqtt-bus.ts', "import mqtt from 'mqtt';")).toEqual([]);
    expect(messagesOf('broker/server.test.ts', "import mqtt from 'mqtt';")).toEqual([]);
    expect(messagesOf('scheduler/x.ts', "import 'left-pad';")[0]).toContain('no entrance');
    expect(messagesOf('models/cut.ts', "import fc from 'fast-check';")[0]).toContain('for tests only');
  });

  it('keep what is for tests out of the program', () => {
    expect(messagesOf('models/slicing/random-graph.ts', "import fc from 'fast-check';")).toEqual([]);
    expect(messagesOf('models/slicing/cut.ts', "import './random-graph.js';")[0]).toContain('for tests only');
    expect(messagesOf('models/slicing/cut.test.ts', "import './random-graph.js';")).toEqual([]);
  });

  it('refuse names that say nothing and imports without an ending', () => {
    expect(messagesOf('models/utils/x.ts', '')).toHaveLength(1);
    expect(messagesOf('models/common.ts', '')).toHaveLength(1);
    expect(messagesOf('models/a.ts', "import './b';")[0]).toContain('must end in .js');
  });
});
