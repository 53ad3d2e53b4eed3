/** What an agent says that is not there: its hello and its health, as far as the registry looks at them. For simulations and tests. */
import type { Health, Hello } from '../../broker/messages.js';

export function helloOf(agent: string, nonce: string, more: Partial<Hello> = {}): Hello {
  const machine = {
    cores: 1,
    host: '',
    hostCores: 1,
    cpuLimit: 0,
    cpuPeriodMs: 0,
    engineThreads: 1,
    memoryBytes: 1e9,
    arch: 'x64',
    cpu: 'none',
  };
  const engine = {
    engine: 'none',
    engineVersion: '0',
    fingerprint: 'f',
    probeMacsPerSecond: 1e9,
    probeBytesPerSecond: 0,
    probeSmallRunMs: 0,
    storeBytesFree: 1e9,
    slices: [],
  };
  const schemas = { schemaFingerprint: 'f', schemaVersion: 1, softwareVersion: '0' };
  const about = { term: 0, scheduler: '', addresses: ['10.0.0.1'], lanePort: 1, healthMs: 1000, connection: 0, encrypted: false };
  return { agent, nonce, ...schemas, ...about, ...machine, ...engine, ...more };
}

export function healthOf(agent: string, nonce: string, more: Partial<Health> = {}): Health {
  const machine = { uptimeMs: 0, cpu: 0, rssBytes: 0, anonymousBytes: 0, memoryFreeBytes: 0, temperature: 0, throttled: -1, reconnects: 0 };
  const zero = { ...machine, queue: 0, framesPerSecond: 0, p50Ms: 0, p95Ms: 0 };
  const counts = { refused: 0, encodedMessages: 0, rawFallbacks: 0, recovered: 0, damaged: 0, peersTerm: 0, peersVersion: 0 };
  return { agent, nonce, ...zero, ...counts, seats: [], lanes: [], refusals: [], ...more };
}
