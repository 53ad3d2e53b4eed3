/** One health message: rates since the last one. */
import type { Health, LaneHealth } from '../broker/messages.js';
import type { Refusals } from '../broker/refusals.js';
import { processMemory, systemFreeBytes, temperatureCelsius, throttledFlags } from './device.js';
import type { Epochs } from './epochs.js';
import type { PeerTable } from './peers.js';
import type { Runner } from './runner.js';

export interface HealthSource {
  readonly agent: string;
  readonly nonce: string;
  readonly epochs: Epochs;
  readonly runner: Runner;
  readonly lanes: () => readonly LaneHealth[];
  readonly refused: () => number;
  /** Files on disk that were found damaged. */
  readonly damaged: () => number;
  readonly refusals: Refusals;
  readonly peers: PeerTable;
  /** Connections to the broker after the first. */
  readonly reconnects: () => number;
  readonly precision: () => Pick<Health, 'encodedMessages' | 'rawFallbacks'>;
  readonly nowMs: () => number;
}

/** What the machine itself says (memory, heat) changes slowly and stands in several files: it is read so often. */
const MACHINE_MS = 5000;

export class HealthMeter {
  private readonly startedMs: number;
  private lastMs: number;
  private lastCpu = process.cpuUsage();
  private lastRuns = 0;
  private rates = { cpu: 0, framesPerSecond: 0 };
  private machine: { readonly said: ReturnType<typeof readMachine>; readonly atMs: number } | undefined;

  constructor(private readonly source: HealthSource) {
    this.startedMs = source.nowMs();
    this.lastMs = this.startedMs;
  }

  /** Reads everything, and the rates of the interval that ends now. */
  read(): Health {
    const now = this.source.nowMs();
    const { finished } = this.source.runner;
    const seconds = Math.max(1e-3, (now - this.lastMs) / 1000);
    const cpu = process.cpuUsage();
    const cpuMicros = cpu.user - this.lastCpu.user + cpu.system - this.lastCpu.system;
    this.rates = { cpu: cpuMicros / 1e6 / seconds, framesPerSecond: (finished - this.lastRuns) / seconds };
    this.lastMs = now;
    this.lastCpu = cpu;
    this.lastRuns = finished;
    return this.now();
  }

  /** Out of turn: the rates are those of the last interval. */
  now(): Health {
    const { agent, nonce, epochs, runner, lanes, refused, damaged, refusals, peers, reconnects, precision, nowMs } = this.source;
    const [p50Ms = 0, p95Ms = 0] = runner.times.read([0.5, 0.95], nowMs());
    const { term, version } = peers.version;
    const seats = [...epochs.all].flatMap((epoch) =>
      epoch.seats.seats.map((seat) => ({
        deployment: epoch.deployment,
        epoch: epoch.epoch,
        stage: seat.stage,
        replica: seat.replica,
        part: seat.part,
        framesRun: epoch.stats[seat.index]?.framesRun ?? 0,
        queue: runner.waiting(epoch, seat.index),
        runMs: epoch.stats[seat.index]?.runMs ?? 0,
      })),
    );
    return {
      agent,
      nonce,
      uptimeMs: Math.round(nowMs() - this.startedMs),
      ...this.rates,
      ...this.machineAt(nowMs()),
      p50Ms,
      p95Ms,
      reconnects: reconnects(),
      queue: runner.waiting(),
      refused: refused(),
      damaged: damaged(),
      ...precision(),
      recovered: epochs.recovered,
      seats,
      lanes: [...lanes()],
      peersTerm: term,
      peersVersion: version,
      refusals: refusals.rows(),
    };
  }

  private machineAt(nowMs: number): ReturnType<typeof readMachine> {
    if (this.machine === undefined || nowMs - this.machine.atMs >= MACHINE_MS) this.machine = { said: readMachine(), atMs: nowMs };
    return this.machine.said;
  }
}

function readMachine() {
  return {
    ...processMemory(),
    memoryFreeBytes: systemFreeBytes(),
    temperature: temperatureCelsius(),
    throttled: throttledFlags(),
  };
}
