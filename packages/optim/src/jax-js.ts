/** The fused optimizers for loops written with jax-js, in the form of optax. The library itself is handed in, so that nothing here depends on it. */
import { OptionError, ShapeError } from "@llmeff/native";
import { type ForeignArray, float32Values, type MakeOptimizer, Stepper } from "./foreign.js";
import type { Optimizer } from "./optimizer-types.js";

export type { MakeOptimizer } from "./foreign.js";

/** An array of jax-js; every use but through `ref` takes it. */
export interface JaxArray {
  readonly shape: number[];
  dataSync(): unknown;
  reshape(shape: number[]): JaxArray;
  dispose(): void;
}

/** What is used of `@jax-js/jax`. */
export interface JaxModule {
  numpy: { array(values: Float32Array): JaxArray };
}

/** Arrays, and arrays and plain objects of such trees. */
export type JaxTree = JaxArray | readonly JaxTree[] | { readonly [key: string]: JaxTree };

/** Taken by every update, which gives a new one: the optimizer inside is stepped in place. */
export interface JaxState {
  /** What was made: its learning rate, `stateDict()`, `gradNorm()`. */
  readonly inner: Optimizer<Float32Array>;
  dispose(): void;
}

export interface JaxOptimizer {
  /** Takes the arrays of `params`. */
  init(params: unknown): JaxState;
  /**
   * Takes `grads`, `state` and the arrays of `params`; what is returned is to be added to the parameters. An update that refuses
   * what it is given has stepped nothing, and leaves `state` to the next one.
   */
  update<T>(grads: T, state: JaxState, params: T): [updates: T, state: JaxState];
}

/**
 * An optimizer with optax' `init` and `update` for trees of jax-js arrays. As there, arrays that are handed in are taken: pass `tree.ref(params)` to keep
 * them. The step is made by the native engine on float32 copies, outside of any `jit`, and reads numbers at once: on the `wasm`
 * and `cpu` devices.
 *
 * Parameters are named by their path in the tree (`layers.0.weight`), for groups and messages.
 *
 * @param jax - the module `@jax-js/jax`
 * @param make - makes the optimizer. Weights `[in, out]`, for `x @ w`, want SONew's chains along their columns: `order: "col"`
 * @throws {DTypeError} at `init` and `update`, for arrays that aren't float32
 * @throws {OptionError} at `update`, for a state that an update has taken before, or inside of `jit`
 *
 * @example
 * const optimizer = jaxOptimizer(jax, (params, shapes) => new Sonew(params, { shapes, learningRate: 3e-3, order: "col" }));
 * let state = optimizer.init(tree.ref(params));
 * [updates, state] = optimizer.update(grads, state, tree.ref(params));
 * params = tree.map((p, u) => p.add(u), params, updates);
 */
export function jaxOptimizer(jax: JaxModule, make: MakeOptimizer): JaxOptimizer {
  const where = "jaxOptimizer";

  class State implements JaxState {
    #stepper: Stepper | undefined;
    readonly inner: Optimizer<Float32Array>;

    constructor(stepper: Stepper) {
      this.#stepper = stepper;
      this.inner = stepper.optimizer;
    }
    get stepper(): Stepper {
      if (this.#stepper !== undefined) return this.#stepper;
      throw new OptionError(
        `[${where}] this state was taken by an update before. Go on from the one that it returned.`,
      );
    }
    take(): Stepper {
      const { stepper } = this;
      this.#stepper = undefined;
      return stepper;
    }
    dispose(): void {
      this.take().optimizer.dispose();
    }
  }

  /** Takes the arrays of a tree. */
  function take(tree: unknown, what: string): Map<string, ForeignArray> {
    const arrays = new Map<string, ForeignArray>();
    for (const [name, array] of leavesOf(tree as JaxTree)) {
      const { shape } = array;
      arrays.set(name, { shape, values: float32Values(where, `${what}${name}`, valuesOf(array)) });
    }
    return arrays;
  }

  /** A tree of the same form with the arrays of these names. */
  function rebuilt(tree: JaxTree, arrayOf: (name: string) => JaxArray, path = ""): JaxTree {
    if (isArray(tree)) return arrayOf(path || root);
    if (Array.isArray(tree)) return tree.map((child, i) => rebuilt(child, arrayOf, joined(path, i)));
    const entries = Object.entries(tree).map(([key, child]) => [key, rebuilt(child, arrayOf, joined(path, key))]);
    return Object.fromEntries(entries);
  }

  return {
    init: (params) => new State(new Stepper(where, make, take(params, ""))),
    update(grads, state, params) {
      if (!(state instanceof State)) throw new OptionError(`[${where}] state must come from init() or update().`);
      const before = take(params, "");
      const gradients = take(grads, "the gradient of ");
      const missing = [...before.keys()].find((name) => !gradients.has(name));
      if (missing !== undefined) throw new ShapeError(`[${where}] there is no gradient of "${missing}".`);
      const stepped = state.stepper.step(before, gradients);
      // Only now: a step that was refused has changed nothing, and leaves the state to another.
      const stepper = state.take();
      const updateOf = (name: string) => {
        const { shape, values } = before.get(name)!;
        return jax.numpy.array(stepped[name]!.map((x, i) => x - values[i]!)).reshape([...shape]);
      };
      return [rebuilt(params as JaxTree, updateOf) as typeof params, new State(stepper)];
    },
  };

  function valuesOf(array: JaxArray): unknown {
    if (typeof array.dataSync !== "function")
      throw new OptionError(`[${where}] an update reads numbers, so it can't be traced. Call it outside of jit.`);
    return array.dataSync();
  }
}

/** The name of an array that is a tree by itself. */
const root = "params";

const joined = (path: string, key: string | number) => (path === "" ? `${key}` : `${path}.${key}`);

/** Arrays, and what stands for them while jax-js traces a function. */
const isArray = (tree: JaxTree): tree is JaxArray => !Array.isArray(tree) && "shape" in tree && "dispose" in tree;

function leavesOf(tree: JaxTree, path = ""): [string, JaxArray][] {
  if (isArray(tree)) return [[path || root, tree]];
  return Object.entries(tree as Record<string, JaxTree>).flatMap(([key, child]) => leavesOf(child, joined(path, key)));
}
