/** The fused optimizers for models of TensorFlow.js. The library itself is handed in, so that nothing here depends on it. */
import { DeviceError, OptionError } from "@llmeff/native";
import { type ForeignArray, float32Values, type MakeOptimizer, Stepper } from "./foreign.js";
import type { Optimizer } from "./optimizer-types.js";

export type { MakeOptimizer } from "./foreign.js";

interface TfTensor {
  readonly shape: number[];
  dataSync(): unknown;
  dispose(): void;
}

interface TfVariable extends TfTensor {
  assign(value: never): void;
}

/** What is used of `@tensorflow/tfjs`, or of `@tensorflow/tfjs-core`. */
export interface TfModule {
  Optimizer: abstract new (...args: never[]) => unknown;
  engine(): { registeredVariables: Record<string, TfVariable> };
  tensor(values: Float32Array, shape: number[]): TfTensor;
}

type InstanceOf<C> = C extends abstract new (...args: never[]) => infer I ? I : never;

/** An optimizer of TensorFlow.js that is one of ours inside. */
export type TfjsOptimizer<T extends TfModule> = InstanceOf<T["Optimizer"]> & {
  /** What was made, from the first step on: its learning rate, `stateDict()`, `gradNorm()`. */
  readonly inner: Optimizer<Float32Array> | undefined;
};

/**
 * An optimizer for `model.compile`, or for `minimize` and `applyGradients` in a loop of one's own.
 *
 * The model computes on TensorFlow.js' backend, which must be one that hands out numbers at once (`cpu`, `wasm`, `webgl`; not `webgpu`); the step is
 * made by the native engine on float32 copies. The first step decides which variables are trained. Other changes of variables
 * between steps (`setWeights`) are seen.
 *
 * @param tf - the module `@tensorflow/tfjs` or `@tensorflow/tfjs-core`
 * @param make - makes the optimizer at the first step. Kernels of dense layers are `[in, out]`, along whose columns SONew's chains belong: `order: "col"`
 * @throws {DTypeError} at a step, for variables or gradients that aren't float32
 * @throws {OptionError} at a step, for a variable that the first step didn't have
 *
 * @example
 * const optimizer = tfjsOptimizer(tf, (params, shapes) => new Sonew(params, { shapes, learningRate: 3e-3, order: "col" }));
 * model.compile({ optimizer, loss: "meanSquaredError" });
 */
export function tfjsOptimizer<T extends TfModule>(tf: T, make: MakeOptimizer): TfjsOptimizer<T> {
  const where = "tfjsOptimizer";
  const Base = tf.Optimizer as unknown as new () => { incrementIterations(): void; dispose(): void };

  class FusedInTfjs extends Base {
    static className = "LlmeffOptimizer";
    #stepper: Stepper | undefined;

    get inner(): Optimizer<Float32Array> | undefined {
      return this.#stepper?.optimizer;
    }

    applyGradients(
      gradients: Record<string, TfTensor | null> | readonly { name: string; tensor: TfTensor | null }[],
    ): void {
      const entries = Array.isArray(gradients)
        ? gradients.map(({ name, tensor }) => [name, tensor] as const)
        : Object.entries(gradients as Record<string, TfTensor | null>);
      const given = entries.filter((entry): entry is [string, TfTensor] => entry[1] !== null && entry[1] !== undefined);
      const variables = new Map(given.map(([name]) => [name, variableOf(name)]));
      const params = new Map(Array.from(variables, ([name, variable]) => [name, numbers(name, variable)]));
      const grads = new Map(given.map(([name, tensor]) => [name, numbers(`the gradient of ${name}`, tensor)]));
      this.#stepper ??= new Stepper(where, make, params);
      const stepped = this.#stepper.step(params, grads);
      for (const [name, variable] of variables) {
        const value = tf.tensor(stepped[name]!.slice(), variable.shape);
        variable.assign(value as never);
        value.dispose();
      }
      this.incrementIterations();
    }

    getConfig(): never {
      throw new OptionError(
        `[${where}] TensorFlow.js can't save this optimizer with a model. Save the model without it, and optimizer.inner.stateDict() beside it.`,
      );
    }

    override dispose(): void {
      this.#stepper?.optimizer.dispose();
    }
  }

  function variableOf(name: string): TfVariable {
    const variable = tf.engine().registeredVariables[name];
    if (variable === undefined) throw new OptionError(`[${where}] there is no variable "${name}"; was it disposed?`);
    return variable;
  }

  function numbers(name: string, tensor: TfTensor): ForeignArray {
    let values: unknown;
    try {
      values = tensor.dataSync();
    } catch (cause) {
      throw new DeviceError(
        `[${where}] "${name}" can't be read at once on this backend: ${(cause as Error).message} Use the cpu, wasm or webgl backend.`,
        { cause },
      );
    }
    return { shape: tensor.shape, values: float32Values(where, name, values) };
  }

  return new FusedInTfjs() as unknown as TfjsOptimizer<T>;
}
