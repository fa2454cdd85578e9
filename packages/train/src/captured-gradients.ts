/** Losses and gradients of steps whose micro-batches have one shape, computed in a captured step. */
import type { Batch } from "@llmeff/data";
import {
  type CapturedStep,
  CaptureError,
  captureStep,
  globalNorm,
  hostNumber,
  isCapturing,
  keep,
  type Tensor,
} from "@llmeff/tensor";
import { Collected } from "./collected.js";
import {
  addAndDispose,
  arraysOf,
  batchFrom,
  differentiate,
  disposeAll,
  type LossAndGradients,
  lossAndGradients,
  microBatchWeights,
  stageOf,
  streamOf,
} from "./gradients.js";
import type { Objective, ObjectiveContext } from "./options.js";

/** Shapes and dtypes of a batch's arrays. */
function formsOf(batch: Batch): Record<string, { shape: readonly number[]; dtype: "int32" | "float32" }> {
  const forms = Object.entries(arraysOf(batch)).map(([name, { data, shape }]) => {
    const dtype = data instanceof Int32Array ? ("int32" as const) : ("float32" as const);
    return [name, { shape, dtype }] as const;
  });
  return Object.fromEntries(forms);
}

type Tensors = Record<string, Tensor>;

/** The losses of the micro-batches, and the norm of the gradients of scaled ones. */
interface Measured {
  values: Tensor[];
  norm: Tensor[];
}

/**
 * The optimizer stays outside: whether the loss is finite is known before it changes a parameter. Gradients stay in the memory of the captured step,
 * which the next replay overwrites.
 */
export class CapturedGradients {
  readonly #objective: Objective;
  readonly #params: Tensors;
  readonly #seed: number;
  #step: CapturedStep<string, Measured> | undefined;
  #stage = "";
  /** Of the micro-batches that the step was captured for. */
  #form = "";
  #grads: Tensors = {};
  #collected = new Collected();
  // Of the present step.
  #number = 0;
  #weights: readonly number[] = [];
  #lossScale: number | undefined;

  constructor(objective: Objective, params: Tensors, seed: number) {
    this.#objective = objective;
    this.#params = params;
    this.#seed = seed;
  }

  /** @param lossScale - in all steps of a run, or in none */
  async compute(batches: readonly Batch[], step: number, lossScale: number | undefined): Promise<LossAndGradients> {
    this.#number = step;
    this.#lossScale = lossScale;
    this.#weights = microBatchWeights(batches);
    this.#enter(stageOf(this.#objective, step));
    const form = JSON.stringify(batches.map(formsOf));
    this.#form ||= form;
    if (form !== this.#form || this.#weights.includes(0)) {
      return lossAndGradients(this.#objective, this.#params, batches, { seed: this.#seed, step, lossScale });
    }
    this.#step ??= this.#make(batches);
    const { values, norm } = this.#step(
      Object.fromEntries(
        batches.flatMap((batch, i) =>
          Object.entries(arraysOf(batch)).map(([name, { data }]) => [`${i} ${name}`, data]),
        ),
      ),
    );
    const grads = this.#grads;
    const collected = this.#collected;
    const release = () => {
      if (this.#step?.mode !== "eager") return; // the memory is the captured step's
      disposeAll(grads);
      collected.dispose();
    };
    try {
      let loss = 0;
      for (const value of values) loss += await value.item();
      const measured = await norm[0]?.item();
      return { loss, grads, ...(measured === undefined ? {} : { norm: measured }), collected: collected.sums, release };
    } catch (error) {
      release();
      throw error;
    } finally {
      for (const one of [...values, ...norm]) one.dispose();
    }
  }

  dispose(): void {
    disposeAll(this.#grads);
    this.#collected.dispose();
    this.#step?.dispose();
    this.#grads = {};
    this.#collected = new Collected();
    this.#step = undefined;
  }

  /** What was captured is of one stage. */
  #enter(stage: string): void {
    if (stage === this.#stage) return;
    this.dispose();
    this.#stage = stage;
    this.#form = "";
  }

  #make(batches: readonly Batch[]): CapturedStep<string, Measured> {
    const inputs = batches.flatMap((batch, i) =>
      Object.entries(formsOf(batch)).map(([name, form]) => [`${i} ${name}`, form] as const),
    );
    const device = Object.values(this.#params)[0]?.device;
    return captureStep((given) => this.#differentiate(given, batches.length), {
      inputs: Object.fromEntries(inputs),
      ...(device === undefined ? {} : { device }),
    });
  }

  #differentiate(inputs: Readonly<Tensors>, microBatches: number): Measured {
    const values: Tensor[] = [];
    const scale =
      this.#lossScale === undefined
        ? undefined
        : { up: hostNumber(() => this.#lossScale!), down: hostNumber(() => 1 / this.#lossScale!) };
    this.#collected = new Collected();
    let grads: Tensors | undefined;
    for (let microBatch = 0; microBatch < microBatches; microBatch++) {
      const own = Object.entries(inputs).filter(([name]) => name.startsWith(`${microBatch} `));
      const batch = batchFrom(
        Object.fromEntries(own.map(([name, array]) => [name.slice(name.indexOf(" ") + 1), array])),
      );
      const weight = hostNumber(() => this.#weights[microBatch]!);
      const context = this.#context(microBatch, microBatches);
      const result = differentiate(this.#objective, this.#params, batch, weight, context, scale);
      grads = grads === undefined ? result.grads : addAndDispose(grads, result.grads);
      values.push(result.value);
    }
    this.#grads = keep(grads!);
    return { values, norm: scale === undefined ? [] : [globalNorm(Object.values(this.#grads))] };
  }

  #context(microBatch: number, microBatches: number): ObjectiveContext {
    const number = () => this.#number;
    return {
      seed: this.#seed,
      get step() {
        if (!isCapturing()) return number();
        throw new CaptureError(
          "[train] the objective uses context.step, which would be the same in every replay of a captured step. Use context.stream for keys, context.byStep for other numbers, or captureStep: false.",
        );
      },
      byStep: (numberAt) => hostNumber(() => numberAt(number())),
      stage: this.#stage,
      microBatch,
      stream: hostNumber(() => streamOf(this.#number, microBatch, microBatches)),
      collect: this.#collected.collect,
    };
  }
}
