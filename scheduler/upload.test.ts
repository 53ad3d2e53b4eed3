import { createHash, randomBytes } from 'node:crypto';
import { access, mkdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { listen } from '../broker/listen.js';
import type { ModelFile, UploadAck } from '../broker/messages.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { MOSQUITTO } from '../broker/test-brokers.js';
import { topicsOf } from '../broker/topics.js';
import { GraphBuilder } from '../models/onnx/build.js';
import { modelFiles } from '../models/onnx/model-files.js';
import type { ChairClient } from './client.js';
import { Gateway, type GatewayOptions } from './gateway.js';
import type { ModelSource } from './model-source.js';
import { scriptedSource } from './scripted-agent.js';
import { codeOf, TestCluster } from './test-cluster.js';
import { modelName, UploadStore, type UploadStoreOptions } from './upload-store.js';

const made = TestCluster.forEachTest();
const folder = (): Promise<string> => made.folder();

/** Any file of any sha256 is a model here; what was asked for is remembered. */
function recordingSource(): ModelSource & { readonly loaded: string[] } {
  const inner = scriptedSource();
  const loaded: string[] = [];
  return {
    loaded,
    parseCut: inner.parseCut,
    frames: inner.frames,
    load: async ({ model, shapes, images }) => {
      loaded.push(model);
      // Reads the graph and finds its data beside it, or throws.
      await modelFiles(model);
      return inner.load({ model: 'scripted', shapes, images });
    },
  };
}

async function startGateway(options: Partial<GatewayOptions> = {}): Promise<Gateway> {
  // With the real library where no other one is named.
  const gateway = new Gateway({
    cluster: 'test',
    stateDirectory: options.stateDirectory ?? (await folder()),
    broker: { host: '127.0.0.1', port: 0 },
    laneHost: '127.0.0.1',
    ...options,
  });
  made.also(() => gateway.stop());
  await gateway.start();
  await made.agent(gateway.brokerUrl, 'a');
  return gateway;
}

const connect = ({ brokerUrl }: Gateway): Promise<ChairClient> => made.client(brokerUrl);

/** y = x + w; `megabytes` of weights nobody uses, so that it takes a while. */
async function model(options: { readonly externalBytes?: number; readonly megabytes?: number } = {}): Promise<string> {
  const { megabytes = 0, ...write } = options;
  const graph = new GraphBuilder();
  const x = graph.input('x', 'float32', [1, 512]);
  const w = graph.weight(
    'w',
    'float32',
    [1, 512],
    Float32Array.from({ length: 512 }, (_, i) => i),
  );
  if (megabytes > 0) graph.weight('ballast', 'uint8', [megabytes * 2 ** 20], new Uint8Array(randomBytes(megabytes * 2 ** 20)));
  const [y] = graph.node('Add', [x, w]);
  graph.output(y, 'float32', [1, 512]);
  const path = join(await folder(), 'net.onnx');
  await graph.write(path, write);
  return path;
}

const request = { name: 'm', cut: 'stages:1' };
const REMOTE = { samePath: false };
const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const fileOf = (bytes: Uint8Array, location = 'net.onnx'): ModelFile => ({ location, sha256: sha(bytes), sizeBytes: bytes.length });

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server, '127.0.0.1', 0);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

describe('a model that the gateway sees at the same path', () => {
  it('is not sent', async () => {
    const source = recordingSource();
    const client = await connect(await startGateway({ source }));
    const path = await model({ externalBytes: 16 });
    let sent = 0;
    expect(await client.upload(path, { onProgress: () => sent++ })).toBe(path);
    expect(sent).toBe(0);
  });

  it('is sent when the file there is another', async () => {
    const [gateway, path] = [await startGateway({ source: recordingSource() }), await model()];
    const bus = await connectBus({ url: gateway.brokerUrl, id: 'asker' });
    made.also(() => bus.stop());
    const [file] = await modelFiles(path);
    const topics = topicsOf('test');
    const answer = new Promise<string | undefined>((resolve) => {
      void bus.subscribe(topics.response('asker'), ({ model }) => resolve(model?.model));
    });
    const other = { location: 'net.onnx', sha256: 'a'.repeat(64), sizeBytes: file?.sizeBytes ?? 0 };
    const body = { kind: 'offer' as const, offer: { path, files: [other] } };
    await bus.publish(topics.request, { id: 'r', client: 'asker', deadlineMs: 1000, body });
    expect(await answer).toBe('');
  });
});

describe('a model that the gateway does not see', () => {
  it('is sent once, planned, deployed, and loaded from what was sent', async () => {
    const source = recordingSource();
    const client = await connect(await startGateway({ source }));
    const path = await model({ megabytes: 3 });
    const progress: number[] = [];
    const name = await client.upload(path, { ...REMOTE, onProgress: (sent, total) => progress.push(sent / total) });
    expect(name).toBe(sha(await readFile(path)));
    expect(progress[0]).toBe(0);
    expect(progress.at(-1)).toBe(1);
    await client.plan({ ...request, model: name });
    await client.deploy({ ...request, model: name });
    expect(source.loaded).toHaveLength(2);
    expect(sha(await readFile(source.loaded[1] ?? ''))).toBe(name);
    let again = 0;
    expect(await client.upload(path, { ...REMOTE, onProgress: () => again++ })).toBe(name);
    expect(again).toBe(0);
  });

  it('comes with its external data, and is cut by the real library', async () => {
    const client = await connect(await startGateway());
    const path = await model({ externalBytes: 16, megabytes: 1 });
    const files = await modelFiles(path);
    expect(files).toHaveLength(2);
    const name = await client.upload(path, REMOTE);
    expect(name).toBe(modelName(files));
    const report = await client.plan({ ...request, model: name });
    expect(report.seats).toHaveLength(1);
  });

  it('goes on where it stood after the broker and the gateway were restarted', async () => {
    const [port, stateDirectory] = [await freePort(), await folder()];
    const options = { broker: { host: '127.0.0.1', port }, stateDirectory, source: recordingSource() };
    const first = await startGateway(options);
    const client = await connect(first);
    const path = await model({ megabytes: 12 });
    const held: number[] = [];
    let restarted: Promise<Gateway> | undefined;
    let heldThen = 0;
    const name = await client.upload(path, {
      ...REMOTE,
      onProgress: (sent) => {
        held.push(sent);
        if (sent > 3 * 2 ** 20) {
          restarted ??= first.stop().then(() => {
            heldThen = held.at(-1) ?? 0;
            return startGateway(options);
          });
        }
      },
    });
    const second = await restarted;
    expect(second).toBeDefined();
    expect(heldThen).toBeLessThan(12 * 2 ** 20);
    // Never from the beginning again.
    for (let i = 1; i < held.length; i++) expect(held[i]).toBeGreaterThanOrEqual(held[i - 1] ?? 0);
    await client.deploy({ ...request, model: name });
  }, 20_000);

  it.skipIf(MOSQUITTO.missing !== '')('travels over Mosquitto, too', async () => {
    const broker = await MOSQUITTO.start();
    made.also(() => broker.stop());
    const gateway = await startGateway({ source: recordingSource(), broker: { url: broker.url } });
    const path = await model({ megabytes: 4 });
    expect(await (await connect(gateway)).upload(path, REMOTE)).toBe(sha(await readFile(path)));
  });

  it('goes on where another client vanished', async () => {
    const gateway = await startGateway({ source: recordingSource() });
    const path = await model({ megabytes: 8 });
    const client = await connect(gateway);
    const vanished = client.upload(path, {
      ...REMOTE,
      onProgress: (sent) => {
        if (sent > 3 * 2 ** 20) void client.close();
      },
    });
    expect(await codeOf(vanished)).toBe('STOPPED');
    const held: number[] = [];
    const other = await connect(gateway);
    await other.upload(path, { ...REMOTE, onProgress: (sent) => held.push(sent) });
    expect(held[0]).toBeGreaterThan(3 * 2 ** 20);
  });

  it('may be sent by several clients at once', async () => {
    const gateway = await startGateway({ source: recordingSource() });
    const path = await model({ megabytes: 4 });
    const clients = await Promise.all([1, 2, 3].map(() => connect(gateway)));
    const names = await Promise.all(clients.map((client) => client.upload(path, REMOTE)));
    expect(new Set(names).size).toBe(1);
  });

  it('is refused when it is larger than the limit, before anything is sent', async () => {
    const client = await connect(await startGateway({ source: recordingSource(), uploadLimitBytes: 1e6 }));
    let sent = 0;
    const upload = client.upload(await model({ megabytes: 2 }), { ...REMOTE, onProgress: () => sent++ });
    expect(await codeOf(upload)).toBe('UPLOAD_TOO_LARGE');
    expect(sent).toBe(0);
  });

  it('is refused when what arrived does not hash to its name, and is right the next time', async () => {
    const gateway = await startGateway({ source: recordingSource() });
    const path = await model();
    const bytes = await readFile(path);
    const bus = await connectBus({ url: gateway.brokerUrl, id: 'liar' });
    made.also(() => bus.stop());
    const topics = topicsOf('test');
    const acks: UploadAck[] = [];
    await bus.subscribe(topics.uploadAck('liar'), (ack) => acks.push(ack));
    const [sha256, sizeBytes] = [sha(bytes), bytes.length];
    await bus.publish(topics.uploadChunk, { client: 'liar', sha256, sizeBytes, offset: 0, data: bytes.map((b) => b ^ 1) });
    await expect.poll(() => acks.map((ack) => ack.code)).toEqual(['BLOB_CORRUPT']);
    const client = await connect(gateway);
    expect(await client.upload(path, REMOTE)).toBe(sha256);
  });

  it('is named MODEL_NOT_FOUND when it was never sent', async () => {
    const client = await connect(await startGateway({ source: recordingSource() }));
    expect(await codeOf(client.plan({ ...request, model: 'e'.repeat(64) }))).toBe('MODEL_NOT_FOUND');
  });

  it('cannot be offered under names that leave its folder', async () => {
    const store = await openStore();
    const bytes = randomBytes(10);
    await store.append(fileOf(bytes), 0, bytes);
    for (const location of ['../x', '/etc/x', 'a/../../x', '.', '', 'a/'])
      expect(await codeOf(store.has([fileOf(bytes, location)]))).toBe('MODEL_WEIGHTS_MISSING');
  });
});

async function openStore(options: Partial<UploadStoreOptions> = {}): Promise<UploadStore> {
  const store = await UploadStore.open({ directory: await folder(), limitBytes: 1000, inUse: () => [], ...options });
  made.also(() => store.close());
  return store;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

describe('the store of models that were sent', () => {
  const put = (store: UploadStore, bytes: Uint8Array) => store.append(fileOf(bytes), 0, bytes);

  it('gives up the models longest unused, and none that is deployed or being loaded', async () => {
    let nowMs = 1e12;
    const [a, b, c, d] = [400, 300, 300, 300].map((size) => randomBytes(size)) as [Buffer, Buffer, Buffer, Buffer];
    const store = await openStore({ nowMs: () => nowMs++, inUse: () => [sha(a)] });
    for (const bytes of [a, b, c]) {
      await put(store, bytes);
      await store.has([fileOf(bytes)]);
    }
    const held = await store.hold(sha(b));
    await put(store, d);
    expect(await Promise.all([a, b, c, d].map((bytes) => store.heldBytes(fileOf(bytes))))).toEqual([400, 300, 0, 300]);
    const e = randomBytes(600);
    expect(await codeOf(put(store, e))).toBe('GATEWAY_STORE_FULL');
    expect(await store.heldBytes(fileOf(d))).toBe(300);
    held.release();
    await put(store, e);
    expect(await exists(held.path)).toBe(false);
  });

  it('says that the disk is full', async () => {
    const store = await openStore({ diskFreeBytes: async () => 64 * 2 ** 20 + 5 });
    expect(await codeOf(put(store, randomBytes(10)))).toBe('GATEWAY_STORE_FULL');
  });

  it('takes four files at once, a fifth when one of them rests', async () => {
    let nowMs = 1e12;
    const store = await openStore({ nowMs: () => nowMs });
    const files = Array.from({ length: 5 }, () => randomBytes(100));
    const begin = (bytes: Buffer) => store.append(fileOf(bytes), 0, bytes.subarray(0, 50));
    for (const bytes of files.slice(0, 4)) await begin(bytes);
    const fifth = files[4] ?? Buffer.alloc(0);
    expect(await codeOf(begin(fifth))).toBe('UPLOAD_BUSY');
    nowMs += 31_000;
    expect(await begin(fifth)).toBe(50);
    const first = files[0] ?? Buffer.alloc(0);
    nowMs += 31_000;
    expect(await store.append(fileOf(first), 50, first.subarray(50))).toBe(100);
  });

  it('continues an unfinished file after a restart, and forgets it after a day', async () => {
    const directory = await folder();
    const bytes = randomBytes(100);
    const first = await openStore({ directory });
    await first.append(fileOf(bytes), 0, bytes.subarray(0, 60));
    await first.close();
    const second = await openStore({ directory });
    expect(await second.heldBytes(fileOf(bytes))).toBe(60);
    await second.close();
    const part = join(directory, 'files', `${sha(bytes)}.part`);
    const yesterday = new Date(Date.now() - 25 * 3600_000);
    await utimes(part, yesterday, yesterday);
    const third = await openStore({ directory });
    expect(await third.heldBytes(fileOf(bytes))).toBe(0);
    expect(await exists(part)).toBe(false);
  });

  it('does not trust a file it finds at its start', async () => {
    const directory = await folder();
    const bytes = randomBytes(100);
    await mkdir(join(directory, 'files'), { recursive: true });
    await writeFile(join(directory, 'files', sha(bytes)), randomBytes(100));
    const store = await openStore({ directory });
    expect(await store.has([fileOf(bytes)])).toBe(false);
    expect(await store.heldBytes(fileOf(bytes))).toBe(0);
  });
});
