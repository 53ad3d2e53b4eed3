/**
 * The yardstick of every measurement: the inference engine with nothing of ours around it, as anybody would write it.
 *   node bare-engine.mjs THREADS PREPACK(0|1) MODEL...
 * Each line on stdin, `{"model": 0, "runs": 5}`, is answered by one on stdout: `{"ms": [...], "anonymousKib": ...}`.
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const [threads, prepack, ...paths] = process.argv.slice(2);
const extra = { session: { intra_op: { allow_spinning: '0' }, disable_prepacking: prepack === '0' ? '1' : '0' } };
const sessions = [];
for (const path of paths) {
  const session = await InferenceSession.create(path, {
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
    logSeverityLevel: 4,
    extra,
  });
  const feeds = {};
  for (const { name, shape, type } of session.inputMetadata) {
    const size = shape.reduce((a, b) => a * b, 1);
    const data =
      type === 'uint8'
        ? Uint8Array.from({ length: size }, () => Math.random() * 256)
        : Float32Array.from({ length: size }, () => Math.random() - 0.5);
    feeds[name] = new Tensor(type, data, shape);
  }
  sessions.push({ session, feeds });
}
const anonymousKib = () => Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
console.log(JSON.stringify({ ms: [], anonymousKib: anonymousKib() }));
for await (const line of createInterface({ input: process.stdin })) {
  const { model, runs } = JSON.parse(line);
  const { session, feeds } = sessions[model];
  const ms = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await session.run(feeds);
    ms.push(performance.now() - start);
  }
  console.log(JSON.stringify({ ms, anonymousKib: anonymousKib() }));
}
