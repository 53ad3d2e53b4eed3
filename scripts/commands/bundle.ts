/** `bundle`: one file with everything that an agent's machine needs. */
import { ChairError } from '../../broker/errors.js';
import { ARCHITECTURES, isArchitecture } from '../bundle/manifest.js';
import type { CommandDefinition, Invocation } from '../command.js';
import { optionText } from '../deploy-options.js';
import { PROGRAM, packageVersion } from '../package-root.js';

export const bundle: CommandDefinition = {
  name: 'bundle',
  summary: 'Make a self-contained bundle of the agent: Node.js, program, packages, systemd unit and install.sh',
  description:
    'The machine that gets it needs nothing else, not even a network: unpack it and run install.sh, or let flash put it onto a card. The same input gives the same bytes.',
  options: [
    {
      flags: '--arch <arch>',
      description: 'processor of the machines it is for; a Raspberry Pi with a 64-bit system is arm64',
      choices: ARCHITECTURES,
    },
    {
      flags: '--node <file-or-url>',
      description:
        'Node.js for linux on that processor: a program, or a .tar.gz or .tar.xz that holds bin/node; default: the Node that runs this, for its own processor',
    },
    { flags: '--node-sha256 <hex>', description: 'checksum of that file; a URL needs it' },
    { flags: '--out <file>', description: 'default: musical-chair-VERSION-linux-ARCH.tgz' },
    { flags: '--check <file>', description: 'make nothing: check a bundle, and say what it is' },
  ],
  json: true,
  examples: [
    {
      line: 'bundle --arch arm64 --node node-v22.21.0-linux-arm64.tar.xz --node-sha256 HEX',
      text: 'for Raspberry Pis; the checksum is a line of SHASUMS256.txt',
    },
    { line: 'bundle --arch x64 --out agent.tgz', text: 'for PCs, with the Node that runs this' },
  ],
  run: (invocation) => (typeof invocation.options.check === 'string' ? check(invocation.options.check, invocation) : make(invocation)),
};

async function make({ options, output }: Invocation): Promise<void> {
  const arch = optionText(options, 'arch');
  if (!isArchitecture(arch)) {
    throw new ChairError('USAGE', 'whom is the bundle for?', {
      expected: `--arch with ${ARCHITECTURES.join(' or ')}`,
      came: arch === '' ? 'none' : arch,
    });
  }
  const out = optionText(options, 'out', `musical-chair-${packageVersion()}-linux-${arch}.tgz`);
  const [from, sha256] = [options.node, options.nodeSha256];
  const { makeBundle } = await import('../bundle/make.js');
  const made = await makeBundle({
    arch,
    out,
    node: { ...(typeof from === 'string' ? { from } : {}), ...(typeof sha256 === 'string' ? { sha256 } : {}) },
    onStep: (step) => output.progress(`${step} ...`),
  });
  const { manifest, name, sizeBytes, unpackedBytes } = made;
  const facts = {
    file: out,
    name,
    version: manifest.version,
    arch,
    node: manifest.node,
    sha256: made.sha256,
    sizeBytes,
    unpackedBytes,
    files: manifest.files.length,
  };
  output.report(facts, () =>
    [
      `${out}: ${(sizeBytes / 1e6).toFixed(1)} MB, ${(unpackedBytes / 1e6).toFixed(0)} MB unpacked, Node ${manifest.node || 'of unknown version'}`,
      `sha256 ${made.sha256}`,
      `name   ${name}`,
      'On the machine:',
      `  tar xzf ${out.split('/').at(-1)} && sudo ./musical-chair/install.sh --name NAME --gateway HOST --token-file FILE`,
      `To running agents: ${PROGRAM} update --bundle ${out}`,
    ].join('\n'),
  );
}

export async function check(file: string, { output }: Pick<Invocation, 'output'>): Promise<void> {
  const { readBundle } = await import('../bundle/read.js');
  const { manifest, name, sha256, sizeBytes } = await readBundle(file);
  const { version, arch, node, files } = manifest;
  output.report({ file, name, version, arch, node, sha256, sizeBytes, files: files.length }, () =>
    [`${file} is whole: ${name} for linux-${arch}, Node ${node || 'of unknown version'}, ${files.length} files`, `sha256 ${sha256}`].join(
      '\n',
    ),
  );
}
