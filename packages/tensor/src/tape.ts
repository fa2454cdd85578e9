import { OptionError } from "@llmeff/native";
import type { KeptResults } from "./kept-results.js";
import type { Tensor } from "./tensor.js";

/** One operation of the forward pass that gradients must go back through. */
export interface Step {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  /** Per input: whether its gradient is asked for. */
  readonly needs: readonly boolean[];
  /** What can have a gradient; holes in the place of results that can't. */
  readonly outputs: readonly (Tensor | undefined)[];
  /** Memory that backward reads, held by the step alone. */
  readonly saved: readonly Tensor[];
  /** Passes on the gradients of the outputs (null where none arrived) as contributions to those of the inputs. */
  backward(douts: readonly (Tensor | null)[], add: (input: number, contribution: Tensor) => void): void;
}

/** The operations of one `valueAndGrad`, in the order in which they were called. */
export class Tape {
  readonly steps: Step[] = [];
  /** Whether calls become steps; if not, it is only noted which tensors depend on others that have a gradient. */
  readonly recording: boolean = true;
  /** Whose results needn't be computed again: those of a checkpoint that keeps some. */
  readonly kept: KeptResults | undefined = undefined;
  /** What was computed under a closed tape, and outlives it, is a constant. */
  closed = false;

  /** Whether a gradient can be asked for an input of an op that is called under this tape. */
  covers(op: string, input: Tensor): boolean {
    if (input.tape === undefined || input.tape.closed) return false;
    if (input.tape !== this) {
      throw new OptionError(
        `[${op}] an input belongs to another valueAndGrad than the innermost one. Gradients of gradients are not supported; use detach() for a constant.`,
      );
    }
    return true;
  }

  /** Per input of an op: whether a gradient can be asked for; undefined if for none. */
  needsOf(op: string, inputs: readonly Tensor[]): readonly boolean[] | undefined {
    const needs = inputs.map((input) => this.covers(op, input));
    return needs.includes(true) ? needs : undefined;
  }

  release(): void {
    this.closed = true;
    for (const step of this.steps) for (const tensor of step.saved) tensor.dispose();
    this.steps.length = 0;
  }
}

/** The innermost recording; undefined inside `noGrad` and while gradients are computed. */
let current: Tape | undefined;

export function currentTape(): Tape | undefined {
  return current;
}

export function withTape<R>(tape: Tape | undefined, fn: () => R): R {
  const outer = current;
  current = tape;
  try {
    return fn();
  } finally {
    current = outer;
  }
}

/** Runs `fn` without recording: its results are constants to an enclosing `valueAndGrad`. */
export function noGrad<R>(fn: () => R): R {
  return withTape(undefined, fn);
}
