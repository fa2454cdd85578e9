import { engine } from "@llmeff/native";
import type { DType } from "../dtype.js";
import { Tensor } from "../tensor.js";

/** The sum of tensors of one shape, added from first to last in float32 (float64 for `dtype` float64) and rounded once. @internal */
export function addAll(tensors: readonly Tensor[], dtype: DType): Tensor {
  const [first] = tensors as [Tensor, ...Tensor[]];
  const out = Tensor.allocate(dtype, first.shape, first.deviceNumber);
  if (out.size > 0)
    engine().op.addAll(
      tensors.map((tensor) => tensor.handle),
      out.handle,
    );
  return out;
}
