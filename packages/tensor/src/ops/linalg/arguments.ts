/** Checks that the functions of linear algebra share. */
import { DTypeError, ShapeError } from "@llmeff/native";
import { isFloating } from "../../dtype.js";
import { formatShape } from "../../shape.js";
import type { Tensor } from "../../tensor.js";
import { checkTensor, describe } from "../arguments.js";

/** Matrices on the last two axes, float32 or float64: factors of fewer bits would be of no use. */
export function checkMatrices(where: string, name: string, a: Tensor): void {
  checkTensor(where, name, a);
  if (a.dtype !== "float32" && a.dtype !== "float64") {
    const advice = isFloating(a.dtype) ? "Compute in float32" : "Convert it";
    throw new DTypeError(
      `[${where}] ${name} must be float32 or float64; received ${a.dtype}. ${advice}: ${name}.astype("float32").`,
    );
  }
  if (a.rank < 2) throw new ShapeError(`[${where}] ${name} must be […, M, N]; received ${formatShape(a.shape)}.`);
}

export function checkSquare(where: string, name: string, a: Tensor): void {
  checkMatrices(where, name, a);
  if (a.shape.at(-1) !== a.shape.at(-2)) {
    throw new ShapeError(`[${where}] expected square matrices […, N, N]; ${describe(name, a)}.`);
  }
}
