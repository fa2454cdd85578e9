import { DisposedError, OptionError } from "@llmeff/native";
import { currentAnomalyMode, withAnomalyMode } from "./anomaly.js";
import { aliasOf, hold } from "./autograd.js";
import { type AddGradient, backward, Gradients } from "./gradients.js";
import { differs, type KeepPolicy, KeptResults } from "./kept-results.js";
import { refuseAsync, scope } from "./scope.js";
import { formatShape, sameShape } from "./shape.js";
import { currentTape, type Step, Tape, withTape } from "./tape.js";
import type { Tensor } from "./tensor.js";
import { replaceTensors, tensorsOf } from "./tree.js";

/**
 * The inside of a checkpoint. Its first run isn't recorded but finds out which tensors of the outer tapes the function uses without having
 * them as inputs; the second run is recorded and may use these.
 */
class Segment extends Tape {
  /** Tensors of outer tapes that were used though they are no inputs. */
  readonly captured = new Set<Tensor>();
  override readonly recording: boolean;
  override readonly kept: KeptResults | undefined;
  readonly #outer: Tape;
  readonly #first: Segment | undefined;

  constructor(outer: Tape, { kept, first }: { kept?: KeptResults | undefined; first?: Segment } = {}) {
    super();
    this.recording = first !== undefined;
    this.kept = kept ?? first?.kept;
    this.#outer = outer;
    this.#first = first;
  }

  override covers(op: string, input: Tensor): boolean {
    if (input.tape === this) return !this.closed;
    if (!this.#outer.covers(op, input)) return false;
    if (this.#first?.captured.has(input) === false) throw differs(`${op} used another tensor of the outside`);
    this.captured.add(input);
    return true;
  }
}

/** A call of a checkpointed function, to be made twice. */
interface Call<A extends readonly unknown[], R> {
  readonly fn: (...args: A) => R;
  readonly args: A;
}

/** Makes the call with aliases of its inputs, which belong to the segment where they have gradients. */
function run<A extends readonly unknown[], R>(
  { fn, args }: Call<A, R>,
  segment: Segment,
  inputs: readonly Tensor[],
  traced: readonly boolean[],
): { result: R; leaves: Tensor[] } {
  const leaves = inputs.map(aliasOf);
  for (const [i, leaf] of leaves.entries()) if (traced[i]) leaf.tape = segment;
  const result = withTape(segment, () => fn(...(replaceTensors(args, leaves) as unknown as A)));
  refuseAsync("checkpoint", result);
  return { result, leaves };
}

export interface CheckpointOptions {
  /** Whose results to keep, so that these operations don't run again: the dear ones, whose results are small for what they cost. Default none. */
  keep?: KeepPolicy;
}

/**
 * Calls a function without keeping its intermediate tensors for the backward pass, which computes them again: memory for time
 * (Chen et al., arXiv:1604.06174). With a checkpoint around each of `√n` groups of `n` layers, `O(√n)` activations exist at a time, for one more
 * forward pass.
 *
 * Only the inputs are held, and the results that `keep` chooses: then the rest alone is computed again, such as norms and activations between products
 * (selective checkpointing; Korthikanti et al., arXiv:2205.05198). A checkpoint inside has its own choice. Results and gradients have the same bits as
 * without. The function is called twice, so it must do the same both times and nothing beside giving its result, through which alone gradients flow; it may
 * use other tensors than its inputs, such as parameters, if they aren't disposed before the backward pass.
 *
 * @param fn - gives a tensor, or a value with tensors in arrays and plain objects
 * @param args - its arguments; their tensors, in arrays and plain objects too, are the inputs
 * @throws {OptionError} for a name in `keep` that no operation has; in the backward pass, if the function doesn't do the same as before
 * @throws {DisposedError} in the backward pass, if it needs a tensor that was disposed and is no input
 *
 * @example
 * const hidden = layers.reduce((x, layer) => checkpoint(block, x, layer), embedded);
 *
 * @example
 * const products = { keep: ["linear", "attention"] };
 * const hidden = layers.reduce((x, layer) => checkpoint(products, block, x, layer), embedded);
 */
export function checkpoint<A extends readonly unknown[], R>(fn: (...args: A) => R, ...args: A): R;
export function checkpoint<A extends readonly unknown[], R>(
  options: CheckpointOptions,
  fn: (...args: A) => R,
  ...args: A
): R;
export function checkpoint(first: unknown, ...rest: unknown[]): unknown {
  if (typeof first === "function") return segmentOf({ fn: first as (...args: unknown[]) => unknown, args: rest });
  const [fn, ...args] = rest;
  if (typeof first !== "object" || first === null || typeof fn !== "function")
    throw new OptionError("[checkpoint] expected a function, or options and a function, before its arguments.");
  const unknown = Object.keys(first).find((key) => key !== "keep");
  if (unknown !== undefined)
    throw new OptionError(`[checkpoint] there is no option ${JSON.stringify(unknown)}. Options: keep.`);
  const { keep } = first as CheckpointOptions;
  const kept = keep === undefined ? undefined : new KeptResults(keep);
  return segmentOf({ fn: fn as (...args: unknown[]) => unknown, args }, kept);
}

function segmentOf<A extends readonly unknown[], R>(call: Call<A, R>, kept?: KeptResults): R {
  const { fn, args } = call;
  const tape = currentTape();
  if (tape === undefined) return scope(() => fn(...args));
  let recorded = false;
  try {
    return scope(() => {
      // Where nothing is recorded yet, the backward pass will come by once more, in the second run of an outer checkpoint.
      const segment = new Segment(tape, { kept: tape.recording ? kept : undefined });
      const inputs = [...tensorsOf(args)];
      const traced = inputs.map((input) => tape.covers("checkpoint", input));
      const { result } = run(call, segment, inputs, traced);
      const results = [...tensorsOf(result)];
      // A tensor that stands twice in the result has one gradient.
      const outputs = results.map((t, i) => (t.tape === segment && results.indexOf(t) === i ? t : undefined));
      segment.release();
      for (const output of outputs) if (output) output.tape = tape;
      recorded = tape.recording && outputs.some((output) => output !== undefined);
      if (recorded) tape.steps.push(stepOf(tape, call, segment, { inputs, traced, outputs }));
      return result;
    });
  } finally {
    if (!recorded) for (const tensor of kept?.tensors ?? []) tensor.dispose();
  }
}

interface Traced {
  inputs: readonly Tensor[];
  traced: readonly boolean[];
  outputs: Step["outputs"];
}

function stepOf<A extends readonly unknown[], R>(
  tape: Tape,
  call: Call<A, R>,
  first: Segment,
  { inputs, traced, outputs }: Traced,
): Step {
  const held = inputs.map(hold);
  const captured = [...first.captured];
  const mode = currentAnomalyMode();
  return {
    op: "checkpoint",
    inputs: [...inputs, ...captured],
    needs: [...traced, ...captured.map(() => true)],
    outputs,
    saved: [...held, ...(first.kept?.tensors ?? [])],
    backward(douts, add) {
      const segment = new Segment(tape, { first });
      // Contributions go on to the outer sums one by one, which are then added up in the same order as without a checkpoint.
      const elsewhere = new Map<Tensor, AddGradient>();
      for (const [i, tensor] of captured.entries()) elsewhere.set(tensor, (c) => add(inputs.length + i, c));
      const gradients = new Gradients(elsewhere);
      try {
        const { result, leaves } = withAnomalyMode(mode, () => runAgain(call, segment, held, traced));
        for (const [i, leaf] of leaves.entries()) elsewhere.set(leaf, (c) => add(i, c));
        addResults(gradients, segment, outputs, [...tensorsOf(result)], douts);
        backward(segment, gradients);
      } finally {
        gradients.release();
        segment.release();
      }
    },
  };
}

function runAgain<A extends readonly unknown[], R>(
  call: Call<A, R>,
  segment: Segment,
  held: readonly Tensor[],
  traced: readonly boolean[],
) {
  try {
    const again = run(call, segment, held, traced);
    segment.kept?.requireTaken();
    return again;
  } catch (error) {
    if (!(error instanceof DisposedError)) throw error;
    throw new DisposedError(
      "[checkpoint] the function uses a tensor that was disposed before the backward pass computed its activations again. Make it an input, or let it live until then.",
      { cause: error },
    );
  }
}

/** Starts the gradients of a segment with those of its results. */
function addResults(
  gradients: Gradients,
  segment: Segment,
  outputs: Step["outputs"],
  again: readonly Tensor[],
  douts: readonly (Tensor | null)[],
): void {
  if (again.length !== outputs.length) throw differs(`it gave ${again.length} tensors instead of ${outputs.length}`);
  for (const [i, output] of outputs.entries()) {
    const result = again[i]!;
    if (output === undefined) continue;
    if (!sameShape(result.shape, output.shape) || result.dtype !== output.dtype || result.tape !== segment) {
      const form = (t: Tensor) => `${t.dtype} ${formatShape(t.shape)}`;
      throw differs(`result ${i} was ${form(result)} instead of ${form(output)}, or of other inputs`);
    }
    const dout = douts[i];
    if (dout) gradients.add("checkpoint", result, dout);
  }
}
