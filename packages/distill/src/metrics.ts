/** What is told of a step: sums that the loss leaves on the device, read when somebody asks. */
import { type Device, deviceTime, hostEffect, isCapturing, keep, type Tensor } from "@llmeff/tensor";

/** Of the last step, over its micro-batches. Means over the rows with a label, in nats. */
export interface DistillMetrics {
  /** Cross-entropy with the labels. */
  ce: number;
  /** The divergence from the teacher, as it is in the loss; 0 without a teacher. */
  kd: number;
  /** `KL(teacher ‖ student)` at the loss's temperatures; like the next two undefined without a teacher, where nobody knows. */
  kl: number | undefined;
  /** Weight of the teacher. */
  omega: number;
  teacherEntropy: number | undefined;
  /** Share of the rows in which both name the same token first. */
  agreement: number | undefined;
  /** Rows with a label. */
  tokens: number;
  /** Mean distance of the inner blocks, unweighted; undefined where none are matched. */
  hiddenStates: number | undefined;
  /** Device time of the teacher's forward passes, its output layer included; undefined in captured steps, which aren't timed apart. */
  teacherSeconds: number | undefined;
}

interface Entry {
  /** `[7]`: those of `DistillationParts`, then the distance of the inner blocks times the number of rows. */
  sums: Tensor;
  teacherMs: Promise<number> | undefined;
}

/** Entries by micro-batch: of the last plain step, and of the captured step, whose replays overwrite their sums. */
export class MetricsBoard {
  readonly #plain = new Map<number, Entry>();
  readonly #captured = new Map<number, Entry>();
  #latest = this.#plain;
  #step = 0;
  omega = 0;
  readonly #matching: boolean;

  /** @param matching - whether inner blocks are matched */
  constructor(matching: boolean) {
    this.#matching = matching;
  }

  /** Keeps the sums of a micro-batch; `step` is read in plain steps only. */
  record(microBatch: number, step: () => number, entry: Entry): void {
    keep(entry.sums);
    if (isCapturing()) {
      this.#put(this.#captured, microBatch, entry);
    } else {
      if (step() !== this.#step) this.#clear(this.#plain);
      this.#step = step();
      this.#put(this.#plain, microBatch, entry);
    }
    const map = isCapturing() ? this.#captured : this.#plain;
    hostEffect(() => {
      this.#latest = map;
    });
  }

  async read(): Promise<DistillMetrics | undefined> {
    const entries = [...this.#latest.values()];
    const { omega } = this;
    if (entries.length === 0) return undefined;
    const rows = await Promise.all(entries.map(({ sums }) => sums.data()));
    const times = await Promise.all(entries.map(({ teacherMs }) => teacherMs));
    const total = (i: number) => rows.reduce((sum, row) => sum + row[i]!, 0);
    const count = Math.max(1, total(5));
    // In plain steps, whose weight is 0, nobody asked a teacher.
    const compared = (i: number) => (omega === 0 ? undefined : total(i) / count);
    const timed = times.every((ms) => ms !== undefined);
    return {
      ce: total(0) / count,
      kd: total(1) / count,
      kl: compared(2),
      omega,
      teacherEntropy: compared(3),
      agreement: compared(4),
      tokens: total(5),
      hiddenStates: this.#matching ? compared(6) : undefined,
      teacherSeconds: timed ? (times as number[]).reduce((a, b) => a + b, 0) / 1000 : undefined,
    };
  }

  dispose(): void {
    this.#clear(this.#plain);
    this.#clear(this.#captured);
  }

  #put(map: Map<number, Entry>, microBatch: number, entry: Entry): void {
    map.get(microBatch)?.sums.dispose();
    map.set(microBatch, entry);
  }

  #clear(map: Map<number, Entry>): void {
    for (const { sums } of map.values()) sums.dispose();
    map.clear();
  }
}

/** The result of `fn` and the time that the device takes for what it queues. */
export function timed<R>(device: Device | undefined, fn: () => R): { result: R; ms: Promise<number> | undefined } {
  if (isCapturing()) return { result: fn(), ms: undefined };
  const before = deviceTime(device);
  const result = fn();
  const after = deviceTime(device);
  return { result, ms: quietly(Promise.all([before, after]).then(([start, end]) => end - start)) };
}

/** The sum of some times. */
export function totalOf(times: readonly Promise<number>[]): Promise<number> {
  return quietly(Promise.all(times).then((all) => all.reduce((a, b) => a + b, 0)));
}

/** A promise that nobody has to wait for: a failure of the device is told by whoever reads the loss. */
function quietly(time: Promise<number>): Promise<number> {
  time.catch(() => undefined);
  return time;
}
