import { engine, OptionError, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape } from "../shape.js";
import { rememberCallSite, Tensor } from "../tensor.js";
import { checkFloating, checkIds, contiguous } from "./arguments.js";
import { filled } from "./creation.js";
import { matrix } from "./matmul.js";
import { transpose } from "./views.js";

/** `Σ_i xs[i] · ws[i]` of rows packed by group. */
function groupedKernel(xs: readonly Tensor[], ws: readonly Tensor[], counts: Tensor): Tensor {
  const { dtype, shape } = xs[0]!;
  const [rows, columns] = [shape[0]!, ws[0]!.shape[2]!];
  const terms = [...xs.keys()].filter((i) => xs[i]!.shape[1]! > 0);
  // A sum of nothing; kernels are not asked about empty arrays.
  if (terms.length === 0 || counts.size === 0 || rows * columns === 0) return filled(0, dtype, [rows, columns]);
  const out = Tensor.allocate(dtype, [rows, columns]);
  const handles = (all: readonly Tensor[]) => terms.map((i) => matrix(all[i]!).handle);
  rememberCallSite(engine().op.groupedMatmul(handles(xs), handles(ws), counts.handle, out.handle));
  return out;
}

/** `aᵀ · b` of each group's rows: `[E, M, N]`. */
function groupedGradKernel(a: Tensor, b: Tensor, counts: Tensor): Tensor {
  const shape = [counts.size, a.shape[1]!, b.shape[1]!];
  if (a.shape[0] === 0) return filled(0, a.dtype, shape);
  const dw = Tensor.allocate(a.dtype, shape);
  rememberCallSite(engine().op.groupedMatmulGrad(matrix(a).handle, matrix(b).handle, counts.handle, dw.handle));
  return dw;
}

const groupedOp = defineOp<undefined, readonly Tensor[]>({
  name: "groupedMatmul",
  inputNames: ["x", "counts"],
  forward(context, [x, counts, ...ws]) {
    const list = contiguous(counts!);
    context.save(x!, list, ...ws);
    return ws.map((w) => groupedKernel([x!], [w], list));
  },
  backward({ needs, saved: [x, counts, ...ws] }, douts) {
    const used = ws.filter((_, i) => douts[i] !== null);
    const slopes = douts.filter((dout) => dout !== null);
    const dw = (w: Tensor, dout: Tensor) =>
      // In the layout of the weights: those of layers, [E, N, K], come as transposed views.
      w.strides[1] === 1 && w.strides[2] !== 1
        ? transpose(groupedGradKernel(dout, x!, counts!), 1, 2)
        : groupedGradKernel(x!, dout, counts!);
    return [
      needs[0]
        ? groupedKernel(
            slopes,
            used.map((w) => transpose(w, 1, 2)),
            counts!,
          )
        : null,
      null,
      ...ws.map((w, i) => (needs[i + 2] && douts[i] ? dw(w, douts[i]) : null)),
    ];
  },
});

/**
 * Products of rows that lie packed by group, as the tokens of each expert do: `out[r] = x[r] · w[e]` for the rows `r` of group `e`. The first
 * `counts[0]` rows belong to group 0, those behind them to group 1, and so on; rows behind the last group give zeros. The counts stay on the
 * device, and groups may be empty.
 *
 * @param x - `[A, K]`; bfloat16 and float16 are summed up in float32 and rounded once
 * @param w - `[E, K, N]`; transposed views cost nothing
 * @param counts - int32 `[E]`, together at most `A`
 * @returns `[A, N]`
 * @throws {ShapeError} if the sizes don't fit
 * @throws {IndexOutOfRangeError} when the values are read, if a count is negative or they are more than `A` together
 *
 * @example
 * const out = groupedMatmul(rows, transpose(weight, 1, 2), load); // weight [E, O, I], as of linear layers
 */
export function groupedMatmul(x: Tensor, w: Tensor, counts: Tensor): Tensor {
  check("groupedMatmul", x, { w }, counts);
  return groupedOp([x, counts, w], undefined)[0]!;
}

/**
 * Several such products of the same rows. The gradient of `x` is one sum over all of them.
 *
 * @param ws - `[E, K, Nᵢ]` each, at most 8
 * @returns `[A, Nᵢ]` for each
 * @throws as `groupedMatmul`
 *
 * @example
 * const [gate, up] = groupedMatmulMany(rows, [gateWeights, upWeights], load);
 */
export function groupedMatmulMany<W extends readonly Tensor[]>(
  x: Tensor,
  ws: W,
  counts: Tensor,
): { [K in keyof W]: Tensor } {
  if (ws.length === 0 || ws.length > 8) {
    throw new OptionError(`[groupedMatmulMany] expected 1 to 8 tensors ws; received ${ws.length}.`);
  }
  check("groupedMatmulMany", x, Object.fromEntries(ws.map((w, i) => [`ws[${i}]`, w])), counts);
  return groupedOp([x, counts, ...ws], undefined) as { [K in keyof W]: Tensor };
}

function check(where: string, x: Tensor, weights: Record<string, Tensor>, counts: Tensor): void {
  checkFloating(where, { x, ...weights });
  checkIds(where, "counts", counts);
  for (const [name, w] of Object.entries(weights)) {
    if (x.rank !== 2 || w.rank !== 3 || x.shape[1] !== w.shape[1]) {
      throw new ShapeError(
        `[${where}] expected x [A, K] and ${name} [E, K, N]; received ${formatShape(x.shape)} and ${formatShape(w.shape)}.`,
      );
    }
    if (counts.rank !== 1 || counts.size !== w.shape[0]) {
      throw new ShapeError(
        `[${where}] counts must be [${w.shape[0]}], one for each matrix of ${name}; received ${formatShape(counts.shape)}.`,
      );
    }
  }
}
