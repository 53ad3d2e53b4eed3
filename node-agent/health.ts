/** One health message: rates since the last one. */
import type { Health, LaneHealth } from '../broker/messages.js';
import { processMemory, systemFreeBytes, temperatureCelsius } from './device.js';
import type { Epochs } from './epochs.js';
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
  readonly precision: () => Pick<Health, 'encodedMessages' | 'rawFallbacks'>;
  readonly nowMs: () => number;
}

export class HealthMeter {
  private readonly startedMs: number;
  private lastMs: number;
  private lastCpu = process.cpuUsage();
  private lastRuns = 0;

  constructor(private readonly source: HealthSource) {
    this.startedMs = source.nowMs();
    this.lastMs = this.startedMs;
  }

  /** Reads everything and starts the next interval. */
  read(): Health {
    const { agent, nonce, epochs, runner, lanes, refused, damaged, precision, nowMs } = this.source;
    const now = nowMs();
    const seconds = Math.max(1e-3, (now - this.lastMs) / 1000);
    const cpu = process.cpuUsage();
    const cpuMicros = cpu.user - this.lastCpu.user + cpu.system - this.lastCpu.system;
    const runs = runner.finished - this.lastRuns;
    this.lastMs = now;
    this.lastCpu = cpu;
    this.lastRuns = runner.finished;
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
      uptimeMs: Math.round(now - this.startedMs),
      cpu: cpuMicros / 1e6 / seconds,
      ...processMemory(),
      memoryFreeBytes: systemFreeBytes(),
      temperature: temperatureCelsius(),
      queue: runner.waiting(),
      framesPerSecond: runs / seconds,
      refused: refused(),
      damaged: damaged(),
      ...precision(),
      seats,
      lanes: [...lanes()],
      peersTerm: 0,
      peersVersion: 0,
      refusals: [],
    };
  }
}
