/** Self-distillation: the teacher is a running average of the student (distillation.md §5). */
import { copyInto, FormatError, keep, mul, OptionError, scope, type Tensor } from "@llmeff/tensor";
import type { Parameters } from "./model.js";

/**
 * An average `θ̄ ← d_t · θ̄ + (1 − d_t) · θ` after each step of the optimizer, with `d_t = min(d, (1 + t) / (10 + t))`, so that it forgets the start soon. Averages
 * are kept in float32 at least; `params` has them in the student's dtype.
 *
 * @example
 * const average = new EmaTeacher(params);
 * optimizer.hooks.afterStep(() => average.update());
 * const objective = distill({ student, teacher: { model: student, params: average.params }, schedule: { kind: "always" } });
 */
export class EmaTeacher {
  /** The teacher's parameters; the same tensors throughout. */
  readonly params: Parameters;
  readonly #student: Parameters;
  readonly #averages: Parameters;
  readonly #decay: number;
  #count = 0;

  /**
   * @param student - parameters that an optimizer changes in place
   * @param options.decay - d, in [0, 1); default 0.999
   */
  constructor(student: Parameters, options: { decay?: number } = {}) {
    const { decay = 0.999 } = options;
    if (!(decay >= 0 && decay < 1)) throw new OptionError(`[EmaTeacher] decay must be in [0, 1); received ${decay}.`);
    this.#student = student;
    this.#decay = decay;
    this.#averages = mapped(student, (param) => wide(param));
    this.params = mapped(this.#averages, (average, name) =>
      isWide(student[name]!) ? average : average.astype(student[name]!.dtype),
    );
  }

  /** Updates so far. */
  get count(): number {
    return this.#count;
  }

  /** Takes the student as it is now into the average. */
  update(): void {
    const t = this.#count;
    const decay = Math.min(this.#decay, (1 + t) / (10 + t));
    for (const [name, param] of Object.entries(this.#student)) {
      scope(() => {
        const average = this.#averages[name]!;
        copyInto(average, mul(average, decay).add(mul(param.astype(average.dtype), 1 - decay)));
        this.#show(name);
      });
    }
    this.#count += 1;
  }

  /** Averages and their number, to be kept beside a checkpoint of the student: for example by `saveSafetensors` with `{ count: String(count) }`. */
  stateDict(): { tensors: Parameters; count: number } {
    return { tensors: this.#averages, count: this.#count };
  }

  /** @throws {FormatError} if the averages aren't of this student; then nothing has changed */
  loadStateDict({ tensors, count }: { tensors: Parameters; count: number }): void {
    if (!Number.isSafeInteger(count) || count < 0) {
      throw new FormatError(`[EmaTeacher] count must be an integer of at least 0; received ${JSON.stringify(count)}.`);
    }
    const form = (x: Tensor | undefined) => (x ? `${x.dtype} [${x.shape.join(", ")}]` : "none");
    for (const [name, average] of Object.entries(this.#averages)) {
      if (form(tensors[name]) === form(average)) continue;
      throw new FormatError(`[EmaTeacher] "${name}" must be ${form(average)}; received ${form(tensors[name])}.`);
    }
    for (const [name, average] of Object.entries(this.#averages)) {
      copyInto(average, tensors[name]!);
      this.#show(name);
    }
    this.#count = count;
  }

  dispose(): void {
    for (const tensors of [this.params, this.#averages]) for (const one of Object.values(tensors)) one.dispose();
  }

  #show(name: string): void {
    const [shown, average] = [this.params[name]!, this.#averages[name]!];
    if (shown !== average) scope(() => copyInto(shown, average.astype(shown.dtype)));
  }
}

const isWide = ({ dtype }: Tensor) => dtype === "float32" || dtype === "float64";

/** A copy in float32 at least. */
function wide(param: Tensor): Tensor {
  return isWide(param) ? mul(param, 1) : param.astype("float32");
}

function mapped(params: Parameters, of: (param: Tensor, name: string) => Tensor): Parameters {
  return Object.fromEntries(Object.entries(params).map(([name, param]) => [name, keep(scope(() => of(param, name)))]));
}
