/** A run's files: every event of the training loop as metrics (JSON lines) and for TensorBoard. */
import { join } from "node:path";
import { EventFileWriter, type MetricRecord, MetricsWriter } from "@llmeff/report";
import type { EvaluationEvent, StepEvent } from "@llmeff/train";
import { defined } from "./defined.js";

export const metricsFile = "metrics.jsonl";

export class Recorder {
  readonly #metrics: MetricsWriter;
  readonly #events: EventFileWriter;
  readonly #tokensPerStep: number;

  private constructor(metrics: MetricsWriter, events: EventFileWriter, tokensPerStep: number) {
    this.#metrics = metrics;
    this.#events = events;
    this.#tokensPerStep = tokensPerStep;
  }

  /** @param resumeAfter - the step that the run goes on from; what was recorded later is dropped */
  static async open(folder: string, resumeAfter: number, tokensPerStep: number): Promise<Recorder> {
    const metrics = await MetricsWriter.open(join(folder, metricsFile), { resumeAfter });
    const events = await EventFileWriter.open(join(folder, "tensorboard"), { resumeAfter });
    return new Recorder(metrics, events, tokensPerStep);
  }

  step(event: StepEvent): void {
    const { type: _, step, ...rest } = event;
    this.#metrics.append({ step, ...rest });
    const { loss, learningRate, gradNorm, tokensPerSecond, mfu, lossScale } = event;
    const shown = defined({ loss, learningRate, tokensPerSecond, gradNorm, mfu, lossScale }) as Record<string, number>;
    const tagged = Object.entries(shown).map(([name, value]) => [`train/${name}`, value] as const);
    this.#events.scalars(Object.fromEntries(tagged), step);
  }

  evaluation({ step, metrics }: EvaluationEvent): void {
    this.#metrics.append({ step, tokens: step * this.#tokensPerStep, ...metrics } satisfies MetricRecord);
    const tagged = Object.entries(metrics).map(([name, value]) => [`valid/${name}`, value] as const);
    this.#events.scalars(Object.fromEntries(tagged), step);
  }

  /** Before a checkpoint, so that no record of a step that a resumed run won't repeat can be lost. */
  async flush(): Promise<void> {
    await Promise.all([this.#metrics.flush(), this.#events.flush()]);
  }

  async close(): Promise<void> {
    await this.#metrics.close();
    await this.#events.close();
  }
}
