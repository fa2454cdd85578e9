import { NonFiniteError } from "@llmeff/native";
import { callSite } from "./call-site.js";
import { isFloating } from "./dtype.js";
import { abs, astype, max } from "./ops/index.js";
import { refuseAsync, scope } from "./scope.js";
import { formatShape } from "./shape.js";
import { noGrad } from "./tape.js";
import type { Tensor } from "./tensor.js";

export interface AnomalyOptions {
  /** Only NaN is refused; default false. For losses in which infinities are meant, such as the logarithm of a probability of 0. */
  allowInfinity?: boolean;
}

/** What operations that are called now are inspected for. */
let current: AnomalyOptions | undefined;

export function currentAnomalyMode(): AnomalyOptions | undefined {
  return current;
}

export function withAnomalyMode<R>(mode: AnomalyOptions | undefined, fn: () => R): R {
  const outer = current;
  current = mode;
  try {
    return fn();
  } finally {
    current = outer;
  }
}

/**
 * Finds the operation that first gives a number that isn't finite: every operation that `fn` calls is waited for, and its results are
 * inspected, and later the gradients that it gives. Much slower, and meant for looking for a mistake; with or without a gradient.
 *
 * - NaN is refused wherever it appears, also if it came in with an input, which the message tells.
 * - An infinity is refused where it arises: in a result or gradient of an operation that has none among its inputs and options. So a mask of
 *   `-Infinity` may be added or filled in.
 * - What an operation of several steps, such as `pow`, has in between doesn't count.
 *
 * @throws {NonFiniteError} that names the operation and its inputs; its `cause` has the stack of the call, also for a gradient
 *
 * @example
 * detectAnomaly(() => grad((p) => p.sqrt().sum(), zeros([2])));
 * // NonFiniteError: [sqrt] expected a finite gradient of input 1; received an infinity. …
 */
export function detectAnomaly<R>(fn: () => R, options: AnomalyOptions = {}): R {
  const result = withAnomalyMode(options, fn);
  refuseAsync("detectAnomaly", result);
  return result;
}

type Extent = "finite" | "an infinity" | "NaN";

/** The worst that stands in a tensor; waits for it. */
function extentOf(x: Tensor): Extent {
  if (!isFloating(x.dtype) || x.size === 0) return "finite";
  const largest = withAnomalyMode(undefined, () =>
    noGrad(() =>
      scope(() => {
        const wide = x.dtype === "float32" || x.dtype === "float64" ? x : astype(x, "float32");
        return max(abs(wide)).itemSync(); // NaN if there is one
      }),
    ),
  );
  if (Number.isNaN(largest)) return "NaN";
  return Number.isFinite(largest) ? "finite" : "an infinity";
}

function hasInfinity(options: unknown): boolean {
  const values = typeof options === "object" && options !== null ? Object.values(options) : [options];
  return values.some((value) => value === Number.POSITIVE_INFINITY || value === Number.NEGATIVE_INFINITY);
}

/** Inspects one call of an operation. */
export class Inspection {
  readonly #op: string;
  readonly #inputs: string;
  readonly #allowsInfinity: boolean;
  readonly #site: Error;

  constructor(mode: AnomalyOptions, op: string, inputs: readonly Tensor[], options: unknown) {
    const extents = inputs.map(extentOf);
    const of = (x: Tensor, i: number) =>
      `${i + 1} is ${formOf(x)}, ${extents[i] === "finite" ? "finite" : `with ${extents[i]}`}`;
    this.#op = op;
    this.#inputs = `Inputs: ${inputs.map(of).join("; ") || "none"}.`;
    this.#allowsInfinity = mode.allowInfinity === true || extents.includes("an infinity") || hasInfinity(options);
    this.#site = callSite(`[${op}] was called here`);
  }

  /** Runs the op's forward pass, in which other operations aren't inspected. */
  results<R extends Tensor | readonly Tensor[]>(forward: () => R): R {
    const result = withAnomalyMode(undefined, forward);
    const results = [result].flat() as Tensor[];
    for (const [i, x] of results.entries()) this.#check(x, results.length > 1 ? `result ${i + 1}` : "result");
    return result;
  }

  /** Runs its backward pass. */
  gradients<R extends readonly (Tensor | null)[]>(backward: () => R): R {
    const gradients = withAnomalyMode(undefined, backward);
    for (const [i, x] of gradients.entries()) if (x) this.#check(x, `gradient of input ${i + 1}`);
    return gradients;
  }

  #check(tensor: Tensor, what: string): void {
    const extent = extentOf(tensor);
    if (extent === "finite" || (extent === "an infinity" && this.#allowsInfinity)) return;
    throw new NonFiniteError(
      `[${this.#op}] expected a finite ${what}; received ${extent} in ${formOf(tensor)}. ${this.#inputs} See the cause of this error for the call.`,
      { cause: this.#site },
    );
  }
}

/** Adds two contributions to the gradient of a tensor, of which an operation gave the second, and inspects the sum. */
export function inspectedSum(op: string, a: Tensor, b: Tensor, add: () => Tensor): Tensor {
  if (current === undefined) return add();
  const sum = withAnomalyMode(undefined, add);
  const extent = extentOf(sum);
  const arose = extent !== "finite" && extentOf(a) === "finite" && extentOf(b) === "finite";
  if (extent === "NaN" || (arose && current.allowInfinity !== true)) {
    throw new NonFiniteError(
      `[${op}] expected a finite sum of gradients; received ${extent} in ${formOf(sum)}, when the gradient of an input was added to that of its other uses.`,
    );
  }
  return sum;
}

function formOf(x: Tensor): string {
  return `${x.dtype} ${formatShape(x.shape)}`;
}
