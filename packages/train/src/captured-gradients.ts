/** Losses and gradients of steps whose micro-batches have one shape, computed in a captured step. */
import type { Batch } from "@llmeff/data";
import {
  type CapturedStep,
  CaptureError,
  captureStep,
  hostNumber,
  isCapturing,
  keep,
  type Tensor,
} from "@llmeff/tensor";
import {
  addAndDispose,
  differentiate,
  disposeAll,
  type LossAndGradients,
  lossAndGradients,
  microBatchWeights,
  streamOf,
} from "./gradients.js";
import type { Objective, ObjectiveContext } from "./options.js";

type Tensors = Record<string, Tensor>;

/**
 * The optimizer stays outside: whether the loss is finite is known before it changes a parameter. Gradients stay in the memory of the captured step,
 * which the next replay overwrites.
 */
export class CapturedGradients {
  readonly #objective: Objective;
  readonly #params: Tensors;
  readonly #seed: number;
  #step: CapturedStep<string, Tensor[]> | undefined;
  /** Of the micro-batches that the step was captured for. */
  #form = "";
  #grads: Tensors = {};
  // Of the present step.
  #number = 0;
  #weights: readonly number[] = [];

  constructor(objective: Objective, params: Tensors, seed: number) {
    this.#objective = objective;
    this.#params = params;
    this.#seed = seed;
  }

  async compute(batches: readonly Batch[], step: number): Promise<LossAndGradients> {
    this.#number = step;
    this.#weights = microBatchWeights(batches);
    const forms = batches.map(({ batchSize, seqLen }) => `${batchSize} ${seqLen}`);
    this.#form ||= forms.join();
    if (forms.join() !== this.#form || this.#weights.includes(0)) {
      return lossAndGradients(this.#objective, this.#params, batches, { seed: this.#seed, step });
    }
    this.#step ??= this.#make(batches);
    const values = this.#step(
      Object.fromEntries(
        batches.flatMap(({ tokens, targets }, i) => [
          [`tokens${i}`, tokens],
          [`targets${i}`, targets],
        ]),
      ),
    );
    const grads = this.#grads;
    const release = this.#step.mode === "eager" ? () => disposeAll(grads) : () => undefined;
    try {
      let loss = 0;
      for (const value of values) loss += await value.item();
      return { loss, grads, release };
    } catch (error) {
      release();
      throw error;
    } finally {
      for (const value of values) value.dispose();
    }
  }

  dispose(): void {
    disposeAll(this.#grads);
    this.#step?.dispose();
  }

  #make(batches: readonly Batch[]): CapturedStep<string, Tensor[]> {
    const inputs = batches.flatMap(({ batchSize, seqLen }, i) => {
      const form = { shape: [batchSize, seqLen], dtype: "int32" as const };
      return [[`tokens${i}`, form] as const, [`targets${i}`, form] as const];
    });
    const device = Object.values(this.#params)[0]?.device;
    return captureStep((given) => this.#differentiate(given, batches.length), {
      inputs: Object.fromEntries(inputs),
      ...(device === undefined ? {} : { device }),
    });
  }

  #differentiate(inputs: Readonly<Tensors>, microBatches: number): Tensor[] {
    const values: Tensor[] = [];
    let grads: Tensors | undefined;
    for (let microBatch = 0; microBatch < microBatches; microBatch++) {
      const batch = { tokens: inputs[`tokens${microBatch}`]!, targets: inputs[`targets${microBatch}`]! };
      const weight = hostNumber(() => this.#weights[microBatch]!);
      const own = differentiate(this.#objective, this.#params, batch, weight, this.#context(microBatch, microBatches));
      grads = grads === undefined ? own.grads : addAndDispose(grads, own.grads);
      values.push(own.value);
    }
    this.#grads = keep(grads!);
    return values;
  }

  #context(microBatch: number, microBatches: number): ObjectiveContext {
    const number = () => this.#number;
    return {
      seed: this.#seed,
      get step() {
        if (!isCapturing()) return number();
        throw new CaptureError(
          "[train] the objective uses context.step, which would be the same in every replay of a captured step. Use context.stream for keys, or captureStep: false.",
        );
      },
      microBatch,
      stream: hostNumber(() => streamOf(this.#number, microBatch, microBatches)),
    };
  }
}
