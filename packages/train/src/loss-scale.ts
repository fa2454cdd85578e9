/**
 * Dynamic scaling of losses, which float16 needs: gradients below its smallest number, 6·10⁻⁸, would be 0. The loss is multiplied by a scale before
 * gradients are taken, and they are divided by it in float32.
 *
 * Micikevicius et al. 2018, arXiv:1710.03740, with the rule and the names of PyTorch's `GradScaler`.
 */
import { OptionError } from "@llmeff/tensor";

export interface LossScaleOptions {
  /** Of the first step; a power of two. Default 65536. */
  initialScale?: number;
  /** What the scale is multiplied by after `growthInterval` steps in a row without an overflow; a power of two above 1. Default 2. */
  growthFactor?: number;
  /** What it is multiplied by after a step with one; a power of two below 1. Default 0.5. */
  backoffFactor?: number;
  /** Default 2000. */
  growthInterval?: number;
}

/** What checkpoints hold of a run's loss scale. */
export interface LossScaleState extends Omit<Required<LossScaleOptions>, "initialScale"> {
  /** Of the next step. */
  scale: number;
  /** Steps without an overflow since the scale last changed. */
  goodSteps: number;
}

/** A scale below 1 would lose what it is there to save. */
const lowest = 1;
/** `2⁻²⁴`, the smallest number of float16, divided by it is a normal number of float32 still. */
const highest = 2 ** 64;

const defaults = { initialScale: 65536, growthFactor: 2, backoffFactor: 0.5, growthInterval: 2000 } as const;

/** The scale of a run, from step to step. */
export class LossScaler {
  readonly #options: Required<LossScaleOptions>;
  #scale: number;
  #goodSteps = 0;

  /** @throws {OptionError} naming the option, what it must be and what came */
  constructor(options: LossScaleOptions = {}) {
    const unknown = Object.keys(options).find((key) => !Object.hasOwn(defaults, key));
    if (unknown !== undefined) {
      throw new OptionError(
        `[train] there is no option "lossScale.${unknown}". Options: ${Object.keys(defaults).join(", ")}.`,
      );
    }
    this.#options = { ...defaults, ...options };
    const { initialScale, growthFactor, backoffFactor, growthInterval } = this.#options;
    requirePower("initialScale", initialScale, `from ${lowest} to 2^64`, (x) => x >= lowest && x <= highest);
    requirePower("growthFactor", growthFactor, "above 1", (x) => x > 1);
    requirePower("backoffFactor", backoffFactor, "below 1", (x) => x < 1);
    if (!Number.isSafeInteger(growthInterval) || growthInterval < 1)
      throw new OptionError(
        `[train] lossScale.growthInterval must be a positive integer; received ${String(growthInterval)}.`,
      );
    this.#scale = initialScale;
  }

  /** What the loss of the next step is multiplied by. */
  get scale(): number {
    return this.#scale;
  }

  /** Whether a step that overflowed says that the scale was too high, not that the run is lost. */
  get canFall(): boolean {
    return this.#scale > lowest;
  }

  /** Takes note of a step, whose gradients had overflowed or not. */
  update(overflowed: boolean): void {
    const { growthFactor, backoffFactor, growthInterval } = this.#options;
    this.#goodSteps = overflowed ? 0 : this.#goodSteps + 1;
    if (overflowed) this.#scale = Math.max(lowest, this.#scale * backoffFactor);
    if (this.#goodSteps < growthInterval) return;
    this.#goodSteps = 0;
    this.#scale = Math.min(highest, this.#scale * growthFactor);
  }

  get state(): LossScaleState {
    const { growthFactor, backoffFactor, growthInterval } = this.#options;
    return { scale: this.#scale, goodSteps: this.#goodSteps, growthFactor, backoffFactor, growthInterval };
  }

  restore({ scale, goodSteps }: LossScaleState): void {
    this.#scale = scale;
    this.#goodSteps = goodSteps;
  }
}

/** So that scaling changes no bit of what neither overflows nor vanishes. */
function requirePower(name: string, value: unknown, range: string, inRange: (value: number) => boolean): void {
  const exponent = typeof value === "number" ? Math.log2(value) : Number.NaN;
  if (Number.isFinite(exponent) && 2 ** Math.round(exponent) === value && inRange(value)) return;
  throw new OptionError(`[train] lossScale.${name} must be a power of two ${range}; received ${String(value)}.`);
}
