/** `flash`: cards and images for Pis that join at their first boot. */
import { ChairError } from '../../broker/errors.js';
import type { CommandDefinition, OptionValues } from '../command.js';
import { optionText } from '../deploy-options.js';
import type { FlashFlags } from '../flash/fleet.js';
import type { TokenFlags } from '../flash/tokens.js';

const TEXTS = [
  'image',
  'bundle',
  'name',
  'count',
  'fleet',
  'gateway',
  'wifi',
  'wifiCountry',
  'wifiPasswordFile',
  'sshKey',
  'user',
  'timezone',
  'out',
  'device',
] as const;

function flagsOf(options: OptionValues): FlashFlags {
  const texts = TEXTS.flatMap((key) => (typeof options[key] === 'string' ? [[key, options[key]]] : []));
  const servers = options.timeServer;
  return {
    ...(Object.fromEntries(texts) as FlashFlags),
    ...(options.wifiHidden === true ? { wifiHidden: true } : {}),
    ...(Array.isArray(servers) ? { timeServer: servers as readonly string[] } : {}),
  };
}

/** Cards find the broker where this command found it. */
function brokerPortOf(url: string): { brokerPort?: number } {
  const port = Number(new URL(url).port);
  return port === 0 ? {} : { brokerPort: port };
}

function tokenFlags(options: OptionValues): TokenFlags {
  return {
    ...(typeof options.tokenFile === 'string' ? { tokenFile: options.tokenFile } : {}),
    ttl: optionText(options, 'ttl', '7d'),
    hold: options.hold === true,
    replace: options.replace === true,
  };
}

export const flash: CommandDefinition = {
  name: 'flash',
  summary: 'Write images or cards from which a Pi starts and joins the cluster by itself',
  description:
    'Takes a 64-bit Raspberry Pi OS image as it was downloaded (.img or .img.xz) and writes into its boot partition what the first boot needs: host name, Wi-Fi, ssh, the agent as a bundle (nothing is fetched from the internet), and a join token that is good for one Pi. Needs no root, except for --device. See docs/flashing.md.',
  options: [
    { flags: '--image <file>', description: 'Raspberry Pi OS (64-bit), .img or .img.xz' },
    { flags: '--bundle <file>', description: 'the agent, as `bundle --arch arm64` made it' },
    { flags: '--name <name>', description: 'name of the agent and of the host; with %d for several: pi-%d' },
    { flags: '--count <number>', description: 'cards, 1 to 1000; default: 1' },
    { flags: '--fleet <file>', description: 'YAML file that names the cards, instead of --name and --count' },
    {
      flags: '--gateway <host>',
      description: 'host name or address of the gateway; default: it is looked for on the local network (mDNS)',
    },
    { flags: '--wifi <ssid>', description: 'Wi-Fi network; its password is asked for' },
    { flags: '--wifi-country <code>', description: 'country the Pi stands in: DE, US, ...' },
    { flags: '--wifi-password-file <file>', description: 'file with the password of the network, instead of asking' },
    { flags: '--wifi-hidden', description: 'the network does not tell its name' },
    { flags: '--ssh-key <file>', description: 'public key of who may log in; without it nobody may' },
    { flags: '--user <name>', description: 'user to log in as; default: pi' },
    { flags: '--timezone <name>', description: 'Europe/Berlin, UTC, ...; default: as in the image' },
    {
      flags: '--time-server <host>',
      description: 'time server, for networks without internet; may be given more than once',
      repeatable: true,
    },
    { flags: '--out <path>', description: 'image to write; for several a folder (cards/) or a pattern (pi-%d.img)' },
    { flags: '--device <path>', description: 'card to write, such as /dev/sdb: removable, not mounted; its name is asked for again' },
    { flags: '--erase <name>', description: "the device's name again, for scripts that cannot be asked" },
    { flags: '--token-file <file>', description: 'join tokens made before: one, or lines "NAME TOKEN"' },
    { flags: '--ttl <time>', description: 'how long the join tokens are good', default: '7d' },
    { flags: '--hold', description: 'a Pi that joins waits until `agents approve`: for cards that travel' },
    { flags: '--replace', description: 'agents of these names have joined before; their certificates end when the new cards join' },
    { flags: '--force', description: 'write over files that exist' },
  ],
  settings: ['broker', 'cluster', 'credentials', 'insecure', 'gateway.directory'],
  json: true,
  examples: [
    {
      line: 'flash --image raspios-lite-arm64.img.xz --bundle agent-arm64.tgz --name pi-1 --gateway 192.168.1.10 --wifi home --wifi-country DE --ssh-key ~/.ssh/id_ed25519.pub --out pi-1.img',
      text: 'one image; write it to a card with Raspberry Pi Imager',
    },
    {
      line: 'flash --image raspios-lite-arm64.img.xz --bundle agent-arm64.tgz --name pi-%d --count 6 --gateway 192.168.1.10 --device /dev/sdb',
      text: 'six cards one after another in the same reader, each read back',
    },
    { line: 'flash --fleet fleet.yaml --out cards/', text: 'what the file says, one image per card' },
  ],
  run: async ({ options, settings, output }) => {
    const { readRequest } = await import('../flash/fleet.js');
    const { flash: run } = await import('../flash/flash.js');
    const { eraseQuestion, flashedText, namesDevice, progressText } = await import('../flash/flash-text.js');
    const { ask, askHidden } = await import('../terminal.js');
    const { inviter } = await import('../flash/tokens.js');
    if (typeof options.out === 'string' && typeof options.device === 'string')
      throw new ChairError('USAGE', '--out and --device contradict each other', { expected: 'one of them', came: 'both' });
    const request = await readRequest(flagsOf(options), settings.cluster, (ssid) =>
      askHidden(`Password of the Wi-Fi network ${ssid}: `, '--wifi-password-file'),
    );
    if (typeof options.erase === 'string' && request.targets.length > 1)
      throw new ChairError('USAGE', '--erase is for one card', {
        todo: 'With several, somebody has to change them: the name is asked for each time.',
      });
    const names = request.targets.map(({ card }) => card.name);
    const invite = await inviter(tokenFlags(options), settings, names);
    const cards = await run(request, {
      ...(invite === undefined ? {} : { invite }),
      ...(settings.broker === 'auto' ? {} : brokerPortOf(settings.broker)),
      force: options.force === true,
      confirm: async (device, card) => {
        const answer =
          typeof options.erase === 'string'
            ? options.erase
            : await ask(eraseQuestion(device, card.name, card.name !== names[0]), `--erase ${device.name}`);
        return namesDevice(answer, device);
      },
      progress: (label) => {
        const from = performance.now();
        return (done, total) => output.progress((columns) => progressText(label, done, total, performance.now() - from, columns));
      },
      note: (line) => output.note(line),
      nowMs: Date.now,
    });
    output.report(cards, () => flashedText(cards, output.columns));
  },
};
