import { describe, expect, it } from 'vitest';
import { ERROR_CODES, type ErrorCode } from '../broker/errors.js';
import { PLANNERS } from '../scheduler/planners/planners.js';
import { main } from './cli.js';
import { COMMANDS } from './commands/index.js';
import { deployRequest, PLANNER_NAMES, parseImageInput } from './deploy-options.js';
import { errorLine } from './output.js';

async function refuse(args: readonly string[]): Promise<{ status: number; stderr: string }> {
  let stderr = '';
  const status = await main(args, {
    write: (text) => {
      stderr += text;
    },
  });
  return { status, stderr };
}

describe('the command line', () => {
  it.each<[string, string[], ErrorCode]>([
    ['no command', [], 'USAGE'],
    ['an unknown command', ['stauts'], 'USAGE'],
    ['an unknown flag', ['status', '--colour'], 'USAGE'],
    ['a missing argument', ['deploy'], 'USAGE'],
    ['an argument too many', ['undeploy', 'a', 'b'], 'USAGE'],
    ['a choice that is none', ['deploy', 'x.onnx', '--objective', 'beauty'], 'USAGE'],
    ['a shape that is none', ['deploy', 'x.onnx', '--shape', 'x=a,b'], 'USAGE'],
    ['an image declaration that is none', ['deploy', 'x.onnx', '--image', 'input=x,colour=red'], 'USAGE'],
    ['a name that is none', ['undeploy', 'a/b'], 'AGENT_NAME_INVALID'],
    ['a port out of range', ['gateway', '--port', '70000'], 'CONFIG_INVALID'],
    ['a broker that is not there', ['status', '--insecure', '--broker', 'mqtt://127.0.0.1:1'], 'BROKER_UNREACHABLE'],
    ['a plain broker without a word', ['status', '--broker', 'mqtt://127.0.0.1:1'], 'INSECURE_REFUSED'],
    ['a broker alone without a word', ['broker'], 'INSECURE_REFUSED'],
    ['a configuration file that is not there', ['status', '--config', '/nowhere.yaml'], 'FILE_NOT_FOUND'],
    ['a model that is not there', ['inspect', '/nowhere.onnx'], 'MODEL_NOT_FOUND'],
    ['a cut that is none', ['verify', '/nowhere.onnx', '--cut', 'bows:4'], 'CUT_INVALID'],
    ['a network the zoo does not have', ['models', 'build', 'lenet'], 'MODEL_NOT_FOUND'],
    ['a photo that is not there', ['demo', '--photo', '/nowhere.jpg'], 'FILE_NOT_FOUND'],
  ])('refuses %s in one line', async (_, args, code) => {
    const { status, stderr } = await refuse(args);
    expect(stderr).toMatch(new RegExp(`^${code}: .+\\n$`));
    expect(status).toBe(code === 'USAGE' || code === 'CONFIG_INVALID' ? 2 : 1);
    expect(ERROR_CODES[code]).toBeDefined();
  });

  it('has an example that starts with its own name for every command', () => {
    for (const command of COMMANDS) for (const example of command.examples) expect(`${example.line} `).toContain(`${command.name} `);
  });

  it('puts errors in one line, and says how to see the stack of a defect', () => {
    expect(errorLine(new Error('first\n  second'))).toBe('INTERNAL: first second (run again with --verbose for the stack)');
  });
});

describe('deploy options', () => {
  it('become a request with every field set', () => {
    const options = {
      shape: ['x=1,3,8,8'],
      cut: 'rows:2',
      shares: '2,1',
      agents: 'a,b',
      image: ['input=x,size=4x6,order=bgr,mean=0.1/0.2/0.3'],
    };
    expect(deployRequest('net', '/m.onnx', options, true)).toEqual({
      name: 'net',
      model: '/m.onnx',
      shapes: ['x=1,3,8,8'],
      images: [{ input: 'x', height: 4, width: 6, order: 'bgr', mean: [0.1, 0.2, 0.3], std: [1, 1, 1] }],
      objective: 'latency',
      planner: 'auto',
      cut: 'rows:2',
      shares: [2, 1],
      agents: ['a', 'b'],
      inFlight: 0,
      deadlineMs: 0,
      maxError: 0,
      calibration: [],
      redundancy: 0,
      weight: 1,
      plan: '',
      verify: false,
      dryRun: true,
      explain: false,
    });
  });

  it.each(['latency', 'throughput', 'throughput<200'])('take the objective %s', (objective) => {
    expect(deployRequest('net', '/m.onnx', { objective }, true).objective).toBe(objective);
  });

  it.each([
    [{ objective: 'speed' }, "'throughput<200'"],
    [{ objective: 'throughput<' }, 'quoted'],
    [{ objective: 'throughput<0' }, 'latency, throughput'],
    [{ objective: 'latency<20' }, 'latency, throughput'],
    [{ planner: 'musical-chair' }, 'Did you mean musical-chair-2018?'],
    [{ planner: 'manual' }, 'auto, single'],
  ])('refuse %o with a word on what is expected', (options, said) => {
    expect(() => deployRequest('net', '/m.onnx', options, true)).toThrow(
      expect.objectContaining({ code: 'USAGE', message: expect.stringContaining(said) }),
    );
  });

  it('name the planners that there are', () => {
    expect([...PLANNERS.keys()].filter((name) => name !== 'manual')).toEqual([...PLANNER_NAMES]);
  });

  it.each(['size=4x6', 'input=x', 'input=x,size=4', 'input=x,size=4x6,order=gbr', 'input=x,size=4x6,mean=1/2'])(
    'refuse the image %s',
    (text) => {
      expect(() => parseImageInput(text)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    },
  );
});
