/**
 * Functions that run before and after each step of an optimizer.
 */
import { OptionError } from "@llmeff/native";
import { hostEffect } from "@llmeff/tensor";
import { refusePromise, show } from "./check.js";
import { type Parameter, requireNamed } from "./storage.js";

/** Sees the gradients of a step, which it may change in place, before anything is checked or measured; what it returns, if anything, takes their place. */
export type BeforeStep<P extends Parameter> = (
  grads: Readonly<Record<string, P>>,
) => // biome-ignore lint/suspicious/noConfusingVoidType: a hook that only looks returns nothing.
Readonly<Record<string, P>> | void;

/** Hooks in the order in which they were added. */
export class StepHooks<P extends Parameter> {
  readonly #before: BeforeStep<P>[] = [];
  readonly #after: (() => void)[] = [];

  /**
   * Calls `hook` before each step. What it throws fails the step, which then changes nothing. In a captured step it is part of what is captured: its
   * operations are replayed, its JavaScript runs once.
   *
   * @returns removes the hook
   */
  beforeStep(hook: BeforeStep<P>): () => void {
    return added(this.#before, hook);
  }

  /**
   * Calls `hook` after each step that didn't throw; the step is queued then, and perhaps not done. What the hook throws doesn't undo it. Of a captured
   * step: after each replay, all of whose operations are queued then.
   *
   * @returns removes the hook
   */
  afterStep(hook: () => void): () => void {
    return added(this.#after, hook);
  }

  /** Whether some hook sees the gradients of the next step, which it may also change in place. @internal */
  get seesGrads(): boolean {
    return this.#before.length > 0;
  }

  /** @internal */
  before(where: string, grads: Readonly<Record<string, P>>): Readonly<Record<string, P>> {
    requireNamed(where, "gradients", grads);
    let chosen = grads;
    for (const hook of [...this.#before]) {
      const result = hook(chosen);
      refusePromise("beforeStep", result);
      chosen = result ?? chosen;
      requireNamed(`${where}] [beforeStep`, "gradients", chosen);
    }
    return chosen;
  }

  /** @internal */
  after(): void {
    hostEffect(() => {
      for (const hook of [...this.#after]) hook();
    });
  }
}

function added<F>(list: F[], hook: F): () => void {
  if (typeof hook !== "function") throw new OptionError(`[hooks] a hook must be a function; received ${show(hook)}.`);
  list.push(hook);
  return () => {
    const place = list.indexOf(hook);
    if (place >= 0) list.splice(place, 1);
  };
}
