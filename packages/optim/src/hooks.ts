/**
 * Functions that run before and after each step of an optimizer.
 */
import { refusePromise } from "./check.js";
import type { Parameter } from "./storage.js";

/** Sees the gradients of a step before anything is checked or measured; what it returns, if anything, takes their place. */
export type BeforeStep<P extends Parameter> = (
  grads: Readonly<Record<string, P>>,
) => // biome-ignore lint/suspicious/noConfusingVoidType: a hook that only looks returns nothing.
Readonly<Record<string, P>> | void;

/** Hooks in the order in which they were added. */
export class StepHooks<P extends Parameter> {
  readonly #before: BeforeStep<P>[] = [];
  readonly #after: (() => void)[] = [];

  /**
   * Calls `hook` before each step. What it throws fails the step, which then changes nothing.
   *
   * @returns removes the hook
   */
  beforeStep(hook: BeforeStep<P>): () => void {
    return added(this.#before, hook);
  }

  /**
   * Calls `hook` after each step that didn't throw; the step is queued then, and perhaps not done. What the hook throws doesn't undo it.
   *
   * @returns removes the hook
   */
  afterStep(hook: () => void): () => void {
    return added(this.#after, hook);
  }

  /** @internal */
  before(grads: Readonly<Record<string, P>>): Readonly<Record<string, P>> {
    let chosen = grads;
    for (const hook of [...this.#before]) {
      const result = hook(chosen);
      refusePromise("beforeStep", result);
      chosen = result ?? chosen;
    }
    return chosen;
  }

  /** @internal */
  after(): void {
    for (const hook of [...this.#after]) hook();
  }
}

function added<F>(list: F[], hook: F): () => void {
  list.push(hook);
  return () => {
    const place = list.indexOf(hook);
    if (place >= 0) list.splice(place, 1);
  };
}
