/** Matching of inner blocks in a training step (distillation.md §5): which blocks, through which projections. */
import { notEqual, OptionError, type Tensor } from "@llmeff/tensor";
import { checkFeatureLoss, type FeatureLoss, featureLoss, projectionName } from "./features.js";
import type { Parameters } from "./model.js";

export interface HiddenStateOptions {
  /** Numbers, from 0, of a block of the student and one of the teacher each. */
  pairs: readonly (readonly [student: number, teacher: number])[];
  /** Multiplies the loss beside the divergence from the teacher's predictions; default 1. */
  weight?: number;
  /** Default `"mse"`. */
  loss?: FeatureLoss;
  /** Compare states as they are, of models of one width; default false: through projections that `featureProjections` made and the parameters hold. */
  identity?: boolean;
}

/** Outputs of blocks by their number. */
export type BlockOutputs = Readonly<Record<number, Tensor>>;

/** `HiddenStateOptions` as they are used. */
export class HiddenStateLoss {
  readonly weight: number;
  readonly #pairs: HiddenStateOptions["pairs"];
  readonly #loss: FeatureLoss;
  readonly #identity: boolean;

  /** @throws {OptionError} for an option outside its domain */
  constructor(where: string, { pairs, weight = 1, loss = "mse", identity = false }: HiddenStateOptions) {
    if (!Array.isArray(pairs) || pairs.length === 0) {
      throw new OptionError(`[${where}] hiddenStates.pairs must name at least one pair of blocks; received none.`);
    }
    const wrong = pairs.flat().find((block) => !Number.isSafeInteger(block) || block < 0);
    if (wrong !== undefined) {
      throw new OptionError(`[${where}] hiddenStates.pairs must hold numbers of blocks, from 0; received ${wrong}.`);
    }
    if (!(weight > 0 && Number.isFinite(weight))) {
      throw new OptionError(`[${where}] hiddenStates.weight must be above 0; received ${weight}.`);
    }
    checkFeatureLoss(where, loss);
    this.#pairs = pairs;
    this.weight = weight;
    this.#loss = loss;
    this.#identity = identity;
  }

  get studentBlocks(): number[] {
    return this.#pairs.map(([block]) => block);
  }

  get teacherBlocks(): number[] {
    return this.#pairs.map(([, block]) => block);
  }

  /**
   * Mean over the pairs and the rows with a label; `[]`.
   *
   * @param labels - int32 `[B, T]`, −100 for rows without one
   * @throws {OptionError} for a projection that the parameters don't have, or a model that returns no blocks
   */
  of(params: Parameters, student: BlockOutputs, teacher: BlockOutputs, labels: Tensor): Tensor {
    const pairs = this.#pairs.map(([own, other], pair) => ({
      student: required("student", student, own),
      teacher: required("teacher", teacher, other),
      projection: this.#identity ? undefined : projectionOf(params, pair),
    }));
    return featureLoss(pairs, { loss: this.#loss, mask: notEqual(labels, -100) });
  }
}

function required(whose: string, outputs: BlockOutputs, block: number): Tensor {
  const output = outputs[block];
  if (output !== undefined) return output;
  throw new OptionError(
    `[distill] the ${whose} returns no output of block ${block}. hiddenStates need models whose \`trained\` does, as those of tokenModel.`,
  );
}

function projectionOf(params: Parameters, pair: number): Tensor {
  const name = projectionName(pair);
  const projection = params[name];
  if (projection !== undefined) return projection;
  throw new OptionError(
    `[distill] the parameters have no "${name}". Add featureProjections(…) to those that are trained, or set hiddenStates.identity for models of one width.`,
  );
}
