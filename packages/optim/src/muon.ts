/**
 * Muon: momentum, orthogonalized by Newton–Schulz iterations.
 */
import { ShapeError } from "@llmeff/native";
import { type DType, mul, scope, sub, type Tensor, type TensorTree } from "@llmeff/tensor";
import { adamw, average } from "./adamw.js";
import { checkKeys, checkNotNegative, requireOptions, withDefaults } from "./check.js";
import { batchKey, batchOf, groupBy, itemOf, leavesOf, withLeaves } from "./leaves.js";
import {
  checkMuon,
  checkMuonDirection,
  checkMuonOptimizer,
  type MuonDirectionHyper,
  type MuonHyper,
  type MuonOptimizerHyper,
  type MuonScale,
  muonDefaults,
  muonDirectionDefaults,
} from "./muon-options.js";
import { newtonSchulz } from "./newton-schulz.js";
import { asSchedule, type ScalarOrSchedule, type Schedule } from "./schedules.js";
import type { Parameter } from "./storage.js";
import {
  chain,
  type GradientTransformation,
  masked,
  type TransformState,
  type TreeMask,
  zerosOf,
} from "./transform.js";
import { TransformOptimizer, type TransformOptions, type TransformRule } from "./transform-optimizer.js";
import { mapTrees } from "./trees.js";

export interface MuonState {
  readonly [key: string]: TransformState;
  /** Running average of the gradients, in the form of the parameters. */
  readonly m: TensorTree;
}

/**
 * Orthogonalized momentum: `m ← momentum m + (1 − momentum) g`; `u = (1 − momentum) g + momentum m` (nesterov) or `m`; passes on
 * `s · newtonSchulz(u)`. Tensors of more than two axes (convolutions) are seen as `[d0, rest]`. Gradients of one shape make one batch.
 *
 * For hidden matrices. Embeddings, heads, norms and biases should go to AdamW, as `muon` has it: an embedding's rows are no linear map of
 * activations, and vectors have nothing to orthogonalize.
 *
 * State: 1 number a parameter. FLOPs of an m × n matrix, m ≤ n: about `nsSteps · (4 m² n + 2 m³)`.
 *
 * @throws {ShapeError} for a tensor of fewer than two axes
 * @see Jordan et al., _Muon: An optimizer for hidden layers in neural networks_, 2024; Liu et al., arXiv:2502.16982 (`matchRmsAdamw`)
 */
export function scaleByMuon(options: Partial<MuonDirectionHyper> = {}): GradientTransformation<MuonState> {
  checkKeys("scaleByMuon", options, Object.keys(muonDirectionDefaults));
  const hyper = withDefaults<MuonDirectionHyper>(muonDirectionDefaults, options);
  checkMuonDirection("scaleByMuon", hyper);
  return {
    init(params) {
      for (const [path, param] of leavesOf(params)) checkMatrix(path, param);
      return { m: zerosOf(params) };
    },
    update: (grads, state) => orthogonalized(grads, state.m, hyper, 1),
  };
}

/** The updates and the next averages, by batches; updates are multiplied with `factor`. */
function orthogonalized<T extends TensorTree>(
  grads: T,
  averages: TensorTree,
  hyper: MuonDirectionHyper,
  factor: number,
): { updates: T; state: { m: TensorTree } } {
  const old = leavesOf(averages);
  const updates = new Map<string, Tensor>();
  const next = new Map<string, Tensor>();
  const entries = [...leavesOf(grads)].map(([path, grad]) => ({ path, grad: asMatrix(path, grad) }));
  for (const group of groupBy(entries, ({ grad }) => batchKey(grad))) {
    const { m, u } = scope(() => {
      const g = batchOf(group.map(({ grad }) => grad));
      const m = average(batchOf(group.map(({ path }) => asMatrix(path, old.get(path)!))), g, hyper.momentum);
      const u = newtonSchulz(hyper.nesterov ? average(m, g, hyper.momentum) : m, {
        steps: hyper.nsSteps,
        dtype: productDType(g, hyper),
        scale: factor * scaleOf(g, hyper.scale),
      });
      return { m, u };
    });
    for (const [i, { path }] of group.entries()) {
      const { shape } = old.get(path)!;
      updates.set(path, itemOf(u, i, shape));
      next.set(path, itemOf(m, i, shape));
    }
  }
  return { updates: withLeaves(grads, updates), state: { m: withLeaves(averages, next) } };
}

function checkMatrix(path: string, param: Tensor): void {
  if (param.rank >= 2) return;
  throw new ShapeError(
    `[scaleByMuon] "${path}" has shape [${param.shape.join(", ")}]; Muon steps tensors of two axes or more. Use muon(), which gives the others to AdamW, or masked().`,
  );
}

function asMatrix(path: string, x: Tensor): Tensor {
  checkMatrix(path, x);
  return x.rank === 2 ? x : x.reshape([x.shape[0]!, -1]);
}

function productDType(x: Tensor, { productDType: choice }: MuonDirectionHyper): DType {
  const narrow = choice === "bfloat16" || (choice === "auto" && x.dtype === "float32" && x.device !== "cpu");
  return narrow ? "bfloat16" : x.dtype;
}

function scaleOf(x: Tensor, scale: MuonScale): number {
  const [rows, columns] = [x.shape.at(-2)!, x.shape.at(-1)!];
  if (scale === "original") return Math.sqrt(Math.max(1, rows / columns));
  return scale === "matchRmsAdamw" ? 0.2 * Math.sqrt(Math.max(rows, columns)) : 1;
}

/** Options of `muon`. */
export interface MuonTransformOptions extends Partial<Omit<MuonHyper, "learningRate">> {
  /**
   * Chooses what Muon steps, by path and tensor; AdamW steps the others. Default: two axes or more, which is wrong for embeddings and heads:
   * name them, as in `(path, p) => p.rank >= 2 && !/embed|head/.test(path)`.
   */
  matrices?: TreeMask;
}

/**
 * Muon for hidden matrices, AdamW for the rest: `u = −lr · (s · newtonSchulz(…) + weightDecay · p)` and
 * `−adamLearningRate · (m̂ / (√v̂ + adamEps) + adamWeightDecay · p)`.
 *
 * The learning rate doesn't depend on the width; 0.02 is a good first guess with `scale: "original"`, AdamW's own with `"matchRmsAdamw"`.
 *
 * @example
 * const transform = muon(0.02, { matrices: (path, p) => p.rank >= 2 && !/embed|head/.test(path) });
 */
export function muon(
  learningRate: ScalarOrSchedule,
  options: MuonTransformOptions = {},
): GradientTransformation<readonly TransformState[]> {
  requireOptions("muon", options);
  const { matrices = (_path: string, p: Tensor) => p.rank >= 2 } = options;
  checkKeys("muon", options, [...Object.keys(muonDefaults), "matrices"]);
  if (typeof learningRate !== "function") checkNotNegative("muon", "learningRate", learningRate);
  const hyper = withDefaults<Omit<MuonHyper, "learningRate">>(muonDefaults, options);
  checkMuon("muon", hyper);
  const hidden = hiddenMatrices(asSchedule(learningRate), hyper);
  const rest = adamw(asSchedule(hyper.adamLearningRate), {
    beta1: hyper.adamBeta1,
    beta2: hyper.adamBeta2,
    eps: hyper.adamEps,
    weightDecay: hyper.adamWeightDecay,
  });
  return chain(
    masked(hidden, matrices),
    masked(rest, (path, p) => !matrices(path, p)),
  );
}

/** Muon's rule with its learning rate and decay, which are numbers on the host: what multiplies the updates does so in the batch. */
function hiddenMatrices(
  schedule: Schedule,
  hyper: Omit<MuonHyper, "learningRate">,
): GradientTransformation<{ count: number; m: TensorTree }> {
  const { init } = scaleByMuon({
    momentum: hyper.momentum,
    nesterov: hyper.nesterov,
    nsSteps: hyper.nsSteps,
    scale: hyper.scale,
    productDType: hyper.productDType,
  });
  return {
    init: (params) => ({ count: 0, m: init(params).m }),
    update(grads, { count, m }, params) {
      const rate = schedule(count);
      checkNotNegative(`muon] [step ${count}`, "learningRate", rate);
      const { updates, state } = orthogonalized(grads, m, hyper, -rate);
      const decay = rate * hyper.weightDecay;
      return {
        updates: decay === 0 ? updates : mapTrees((u, p) => sub(u, mul(p, decay)), updates, params),
        state: { count: count + 1, ...state },
      };
    },
  };
}

const muonRule: TransformRule<MuonOptimizerHyper> = {
  kind: "muon",
  name: "Muon",
  defaults: { learningRate: 0.02, method: "auto", ...muonDefaults },
  check: checkMuonOptimizer,
  batched: true,
  transform: ({ learningRate, method, ...hyper }) =>
    muon(learningRate, {
      ...hyper,
      matrices: (_path, p) => method === "muon" || (method === "auto" && p.rank >= 2),
    }),
};

export type MuonOptions = TransformOptions<MuonOptimizerHyper>;

/**
 * Muon for hidden matrices and AdamW for the rest (see `muon`) as an optimizer. Matrices of one shape are stepped together, in a few large products.
 *
 * @example
 * const optimizer = new Muon(params, { learningRate: wsd(0.02, 1000), groups: [{ params: /embed|head/, method: "adamw" }] });
 */
export class Muon<P extends Parameter> extends TransformOptimizer<P, MuonOptimizerHyper> {
  constructor(params: Readonly<Record<string, P>>, options: MuonOptions = {}) {
    super(muonRule, params, options);
  }
}
