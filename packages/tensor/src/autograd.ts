import { DTypeError } from "@llmeff/native";
import { currentAnomalyMode, Inspection } from "./anomaly.js";
import { commonDevice, onDevice } from "./device.js";
import { isFloating } from "./dtype.js";
import type { KeptResults } from "./kept-results.js";
import { adopt, scope } from "./scope.js";
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

/**
 * An operation with its gradient. Its inputs are on one device, where the tensors that it makes are too unless it says otherwise: `O` are its options, `R` its results. */
export interface OpDefinition<O, R extends OpResult = Tensor> {
  name: string;
  /** Of the inputs, for messages; default "argument 1", … */
  inputNames?: readonly string[];
  /** Whether infinities may be meant, such as the log-sum-exp of nothing: `detectAnomaly` lets them pass. Default false. */
  mayBeInfinite?: boolean;
  /** Checks its arguments, computes the results, and saves what `backward` needs. Temporary tensors are freed when it returns. */
  forward(context: ForwardContext, inputs: readonly Tensor[], options: O): R;
  /**
   * Saves what `forward` would, given the results that a checkpoint has kept. For an op that saves what it makes of its inputs and can make again for less
   * than the memory is worth; without this a checkpoint that keeps the results keeps everything saved but the inputs.
   */
  saveAgain?(context: ForwardContext, inputs: readonly Tensor[], options: O, results: R): void;
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
  return adopt(aliasOf(tensor));
}

/** The device of an op's inputs, which must be tensors on one; undefined if it has none. */
function checkInputs(op: string, inputs: readonly Tensor[], names?: readonly string[]): number | undefined {
  for (let i = 0; i < inputs.length; i++) {
    const input: unknown = inputs[i];
    if (!(input instanceof Tensor)) {
      const received = input === null ? "null" : typeof input;
      throw new DTypeError(`[${op}] argument ${i + 1} must be a Tensor; received ${received}. Use tensor(…).`);
    }
  }
  return commonDevice(op, inputs, names);
}

/** Of all operations that were defined so far: what a checkpoint may be told to keep. @internal */
export const operationNames = new Set<string>();

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
  const { name, inputNames, mayBeInfinite = false } = definition;
  operationNames.add(name);
  return (inputs, options) => {
    const device = checkInputs(name, inputs, inputNames);
    const tape = currentTape();
    const needs = tape?.needsOf(name, inputs);
    const mode = currentAnomalyMode();
    const inspection =
      mode && new Inspection({ allowInfinity: mayBeInfinite || mode.allowInfinity === true }, name, inputs, options);
    const run = (context: ForwardContext) => {
      const forward = () => definition.forward(context, inputs, options);
      // The forward pass of an op may be written with other ops; only the op itself is recorded.
      return withTape(undefined, () =>
        onDevice(device, () => scope(inspection ? () => inspection.results(forward) : forward)),
      );
    };
    if (needs === undefined) return ownResults(inputs, run(constantContext(inputs.length)));
    const kept = tape!.kept?.keeps(name) ? tape!.kept : undefined;
    const call = { inputs, device, needs, options, inspection };
    if (tape!.recording)
      return record(tape!, definition, call, kept ? (context) => again(kept, definition, call, context) : run);
    if (kept === undefined) return ownResults(inputs, run(constantContext(inputs.length)), tape);
    return ownResults(
      inputs,
      kept.run(name, inputs, (save) => run(keepingContext(definition, needs, save))),
      tape,
    );
  };
}

const constantContexts: ForwardContext[] = [];

/** What ops may use that aren't recorded, by their number of inputs. */
function constantContext(inputs: number): ForwardContext {
  constantContexts[inputs] ??= { needs: new Array(inputs).fill(false), recording: false, save: () => undefined };
  return constantContexts[inputs];
}

/** What an op may use whose results a checkpoint keeps: it saves now what it can't save again. */
function keepingContext<O, R extends OpResult>(
  { saveAgain }: OpDefinition<O, R>,
  needs: readonly boolean[],
  save: ForwardContext["save"],
): ForwardContext {
  return { needs, recording: true, save: saveAgain === undefined ? save : () => undefined };
}

/** In the place of an op's forward pass whose results were kept. */
function again<O, R extends OpResult>(
  kept: KeptResults,
  { name, saveAgain }: OpDefinition<O, R>,
  { inputs, device, options }: Call<O>,
  context: ForwardContext,
): R {
  const restore = () => {
    const result = kept.take<R>(name, inputs, context.save);
    saveAgain?.(context, inputs, options, result);
    return result;
  };
  return withTape(undefined, () => onDevice(device, () => scope(restore)));
}

/**
 * Results as tensors of their own: with a tape, gradients can be asked for them; without, they are constants, also where an op returned an input
 * as it came.
 */
function ownResults<R extends OpResult>(inputs: readonly Tensor[], result: R, tape?: Tape): R {
  const own: Tensor[] = [];
  for (const tensor of resultsOf(result)) {
    const given = tensor.tape !== undefined || (tape && (inputs.includes(tensor) || own.includes(tensor)));
    const output = given ? aliasOf(tensor) : tensor;
    if (isFloating(output.dtype)) output.tape = tape;
    own.push(output);
  }
  return (result instanceof Tensor ? own[0] : own) as R;
}

/** @internal */
export function resultsOf(result: OpResult): readonly Tensor[] {
  return result instanceof Tensor ? [result] : result;
}

interface Call<O> {
  inputs: readonly Tensor[];
  device: number | undefined;
  needs: readonly boolean[];
  options: O;
  inspection: Inspection | undefined;
}

/** Runs an op's forward pass and adds the call to the tape. */
function record<O, R extends OpResult>(
  tape: Tape,
  definition: OpDefinition<O, R>,
  call: Call<O>,
  run: (context: ForwardContext) => R,
): R {
  const saved: Tensor[] = [];
  const save = (...tensors: Tensor[]) => {
    for (const tensor of tensors) saved.push(hold(tensor));
  };
  let recorded = false;
  try {
    const result = ownResults(call.inputs, run({ needs: call.needs, recording: true, save }), tape);
    const outputs = resultsOf(result).map((tensor) => (tensor.tape === tape ? tensor : undefined));
    recorded = outputs.some((output) => output !== undefined);
    if (recorded) tape.steps.push(stepOf(definition, call, saved, outputs, result instanceof Tensor));
    return result;
  } finally {
    if (!recorded) for (const tensor of saved) tensor.dispose();
  }
}

function stepOf<O, R extends OpResult>(
  definition: OpDefinition<O, R>,
  { inputs, device, needs, options, inspection }: Call<O>,
  saved: readonly Tensor[],
  outputs: Step["outputs"],
  single: boolean,
): Step {
  const shapes = inputs.map((input) => input.shape);
  return {
    op: definition.name,
    inputs,
    needs,
    outputs,
    saved,
    backward(douts, add) {
      const dout = (single ? douts[0] : douts) as ResultGradients<R>;
      const run = () => definition.backward({ needs, saved, shapes, options }, dout);
      const gradients = onDevice(device, () => (inspection ? inspection.gradients(run) : run()));
      for (const [i, gradient] of gradients.entries()) if (gradient && needs[i]) add(i, gradient);
    },
  };
}
