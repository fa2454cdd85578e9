import { DTypeError } from "@llmeff/native";
import { currentAnomalyMode, Inspection } from "./anomaly.js";
import { isFloating } from "./dtype.js";
import { claim, scope } from "./scope.js";
import { currentTape, type Step, type Tape, withTape } from "./tape.js";
import { Tensor } from "./tensor.js";

/** What an op's forward pass may use. */
export interface ForwardContext {
  /** Per input: whether its gradient will be asked for. */
  readonly needs: readonly boolean[];
  /** Whether any is. */
  readonly recording: boolean;
  /** Keeps tensors for the backward pass, where they are `saved` in the same order. Does nothing when not recording. */
  save(...tensors: Tensor[]): void;
}

/** What an op's backward pass may use. */
export interface BackwardContext<O> {
  readonly needs: readonly boolean[];
  readonly saved: readonly Tensor[];
  /** Shapes of the inputs. */
  readonly shapes: readonly (readonly number[])[];
  readonly options: O;
}

/** What an op computes: a tensor or several. Those of integers and booleans carry no gradient. */
export type OpResult = Tensor | readonly Tensor[];

/** The gradients of an op's results; with several results, null for those that nothing was computed from. */
export type ResultGradients<R extends OpResult> = R extends readonly Tensor[]
  ? { readonly [K in keyof R]: Tensor | null }
  : Tensor;

/** An operation with its gradient: `O` are its options, `R` its results. */
export interface OpDefinition<O, R extends OpResult = Tensor> {
  name: string;
  /** Checks its arguments, computes the results, and saves what `backward` needs. Temporary tensors are freed when it returns. */
  forward(context: ForwardContext, inputs: readonly Tensor[], options: O): R;
  /**
   * The gradients of the inputs for those of the results; null for an input that needs none. Temporary tensors are freed. It isn't called
   * when no result with an element has a gradient.
   */
  backward(context: BackwardContext<O>, dout: ResultGradients<R>): readonly (Tensor | null)[];
}

/** An alias of a tensor's memory with no tape; the gradient machinery holds its own, so that users may dispose theirs. */
export function aliasOf(tensor: Tensor): Tensor {
  return tensor.view(tensor.shape, tensor.strides);
}

/** An alias that belongs to no scope: whoever holds it disposes it. */
export function hold(tensor: Tensor): Tensor {
  const alias = aliasOf(tensor);
  claim(alias);
  return alias;
}

function tracedOf(op: string, inputs: readonly Tensor[], tape: Tape | undefined): boolean[] {
  return inputs.map((input, i) => {
    if (!(input instanceof Tensor)) {
      const received = input === null ? "null" : typeof input;
      throw new DTypeError(`[${op}] argument ${i + 1} must be a Tensor; received ${received}. Use tensor(…).`);
    }
    return tape?.covers(op, input) ?? false;
  });
}

/**
 * Makes a differentiable function of tensors.
 *
 * @example
 * const cube = defineOp<undefined>({
 *   name: "cube",
 *   forward(context, [x]) {
 *     context.save(x!);
 *     return x!.mul(x!).mul(x!);
 *   },
 *   backward({ saved: [x] }, dout) {
 *     return [dout.mul(x!.square().mul(3))];
 *   },
 * });
 *
 * @example
 * // Several results: backward receives as many gradients, null for those that the loss doesn't depend on.
 * const sumAndDifference = defineOp<undefined, readonly [Tensor, Tensor]>({
 *   name: "sumAndDifference",
 *   forward: (_context, [a, b]) => [a!.add(b!), a!.sub(b!)],
 *   backward(_context, [dsum, ddifference]) {
 *     if (dsum === null) return [ddifference, ddifference!.neg()];
 *     if (ddifference === null) return [dsum, dsum];
 *     return [dsum.add(ddifference), dsum.sub(ddifference)];
 *   },
 * });
 */
export function defineOp<O, R extends OpResult = Tensor>(
  definition: OpDefinition<O, R>,
): (inputs: readonly Tensor[], options: O) => R {
  const { name } = definition;
  return (inputs, options) => {
    const tape = currentTape();
    const traced = tracedOf(name, inputs, tape);
    const tracing = traced.includes(true);
    const recording = tracing && tape!.recording;
    const needs = recording ? traced : traced.map(() => false);
    const saved: Tensor[] = [];
    const context: ForwardContext = {
      needs,
      recording,
      save(...tensors) {
        if (recording) for (const tensor of tensors) saved.push(hold(tensor));
      },
    };
    const mode = currentAnomalyMode();
    const inspection = mode && new Inspection(mode, name, inputs, options);
    try {
      const forward = () => definition.forward(context, inputs, options);
      // The forward pass of an op may be written with other ops; only the op itself is recorded.
      const result = withTape(undefined, () => scope(inspection ? () => inspection.results(forward) : forward));
      const single = result instanceof Tensor;
      // What an op returns as it came in is a constant like any other result of noGrad.
      if (!tracing) return (single ? constant(result) : (result as readonly Tensor[]).map(constant)) as R;
      const results = traceResults(tape!, inputs, single ? [result] : (result as readonly Tensor[]));
      if (recording)
        tape!.steps.push(stepOf(definition, { needs, inputs, options, saved, results, single, inspection }));
      return (single ? results[0] : results) as R;
    } catch (error) {
      for (const tensor of saved) tensor.dispose();
      throw error;
    }
  };
}

function constant(tensor: Tensor): Tensor {
  return tensor.tape === undefined ? tensor : aliasOf(tensor);
}

/** Lets gradients be asked for results; each is made a tensor of its own, to have a gradient of its own. */
function traceResults(tape: Tape, inputs: readonly Tensor[], results: readonly Tensor[]): Tensor[] {
  const own: Tensor[] = [];
  for (const result of results) {
    const given = result.tape !== undefined || inputs.includes(result) || own.includes(result);
    const output = given ? aliasOf(result) : result;
    if (isFloating(output.dtype)) output.tape = tape;
    own.push(output);
  }
  return own;
}

interface Call<O> {
  needs: readonly boolean[];
  inputs: readonly Tensor[];
  options: O;
  saved: readonly Tensor[];
  results: readonly Tensor[];
  single: boolean;
  inspection: Inspection | undefined;
}

function stepOf<O, R extends OpResult>(definition: OpDefinition<O, R>, call: Call<O>): Step {
  const { needs, inputs, options, saved, results, single, inspection } = call;
  const shapes = inputs.map((input) => input.shape);
  return {
    op: definition.name,
    inputs,
    needs,
    outputs: results.map((tensor) => (isFloating(tensor.dtype) ? tensor : undefined)),
    saved,
    backward(douts, add) {
      const dresult = (single ? douts[0] : douts) as ResultGradients<R>;
      const gradients = () => definition.backward({ needs, saved, shapes, options }, dresult);
      const contributions = inspection ? inspection.gradients(gradients) : gradients();
      for (const [i, contribution] of contributions.entries()) if (contribution && needs[i]) add(i, contribution);
    },
  };
}
