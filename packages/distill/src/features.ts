/** Matching of a teacher's hidden states, through projections that are trained with the student and belong to the distiller (distillation.md §5). */
import {
  detach,
  keep,
  matmul,
  maximum,
  mean,
  mul,
  OptionError,
  randomNormal,
  ShapeError,
  scope,
  sub,
  sum,
  type Tensor,
  where,
} from "@llmeff/tensor";
import type { Parameters } from "./model.js";

/** Parameters of the distiller begin with it; a student that is handed on has none of them. */
const prefix = "distill.";

const featureLosses = ["mse", "cosine", "unitMse"] as const;
export type FeatureLoss = (typeof featureLosses)[number];

/** Hidden states of a layer of each. */
export interface FeaturePair {
  /** `[…, d_s]` */
  student: Tensor;
  /** `[…, d_t]` */
  teacher: Tensor;
  /** `[d_s, d_t]`; default none, for layers of one width. */
  projection?: Tensor | undefined;
}

/**
 * Fresh projections for some pairs of layers, to be trained with the student: add them to its parameters. Their names begin with `distill.`; entries are
 * normal with variance `1 / d_s`.
 *
 * @param widths - `[d_s, d_t]` of each pair
 */
export function featureProjections(
  widths: readonly (readonly [student: number, teacher: number])[],
  options: { seed?: number; like: Tensor },
): Parameters {
  const { seed = 0, like } = options;
  const made = widths.map(([from, to], pair) => {
    const matrix = scope(() =>
      mul(randomNormal({ seed, stream: pair }, [from, to], { device: like.device }), 1 / Math.sqrt(from)).astype(
        like.dtype,
      ),
    );
    return [projectionName(pair), keep(matrix)] as const;
  });
  return Object.fromEntries(made);
}

/** The parameters without the distiller's: what is exported. */
export function studentParameters(params: Parameters): Parameters {
  return Object.fromEntries(Object.entries(params).filter(([name]) => !name.startsWith(prefix)));
}

/**
 * Mean distance of the student's projected states from the teacher's, over the pairs and the rows that count. The teacher gets no gradient.
 *
 * `mse`: mean over the channels of `(h_s W − h_t)²`. `cosine`: `1 − cos`. `unitMse`: `mse` of the states at length 1.
 *
 * @param options.mask - bool, the shape of the rows; default all
 * @throws {ShapeError} if the states don't fit
 */
export function featureLoss(
  pairs: readonly FeaturePair[],
  options: { loss?: FeatureLoss; mask?: Tensor } = {},
): Tensor {
  const { loss = "mse", mask } = options;
  if (pairs.length === 0) throw new OptionError("[featureLoss] expected pairs of states; received none.");
  checkFeatureLoss("featureLoss", loss);
  for (const [i, pair] of pairs.entries()) checkPair(i, pair, mask);
  return scope(() => {
    const losses = pairs.map((pair) => meanOver(distances(pair, loss), mask));
    return losses.reduce((a, b) => a.add(b)).mul(1 / pairs.length);
  });
}

/** @throws {OptionError} */
export function checkFeatureLoss(where: string, loss: FeatureLoss): void {
  if (featureLosses.includes(loss)) return;
  throw new OptionError(`[${where}] loss must be mse, cosine or unitMse; received ${JSON.stringify(loss)}.`);
}

/** The projection of a pair among the parameters of a run. */
export function projectionName(pair: number): string {
  return `${prefix}projection.${pair}`;
}

function checkPair(index: number, { student, teacher, projection }: FeaturePair, mask: Tensor | undefined): void {
  const [from, to] = projection ? projection.shape : [teacher.shape.at(-1), teacher.shape.at(-1)];
  const rows = student.shape.slice(0, -1).join();
  const fits =
    student.shape.at(-1) === from && teacher.shape.at(-1) === to && teacher.shape.slice(0, -1).join() === rows;
  if (fits && (mask === undefined || mask.shape.join() === rows)) return;
  const show = (x: Tensor | undefined) => (x ? `[${x.shape.join(", ")}]` : "none");
  throw new ShapeError(
    `[featureLoss] pair ${index}: expected states [rows, d_s] and [rows, d_t], a projection [d_s, d_t] and a mask [rows]; received ${show(student)}, ${show(teacher)}, ${show(projection)} and ${show(mask)}.`,
  );
}

const last = { axis: -1 } as const;

/** Of each row. */
function distances({ student, teacher, projection }: FeaturePair, loss: FeatureLoss): Tensor {
  const own = projection ? matmul(student, projection) : student;
  const wanted = detach(teacher);
  if (loss === "mse") return mean(sub(own, wanted).square(), last);
  const [a, b] = [unit(own), unit(wanted)];
  return loss === "cosine" ? sum(mul(a, b), last).neg().add(1) : mean(sub(a, b).square(), last);
}

function unit(x: Tensor): Tensor {
  // A state of zeros stays one: its length is taken as the smallest that doesn't overflow when divided by.
  return x.div(maximum(sum(x.square(), { axis: -1, keepDims: true }), 1e-24).sqrt());
}

function meanOver(rows: Tensor, mask: Tensor | undefined): Tensor {
  if (mask === undefined) return mean(rows);
  const count = maximum(mask.astype(rows.dtype).sum(), 1);
  return sum(where(mask, rows, 0)).div(count);
}
