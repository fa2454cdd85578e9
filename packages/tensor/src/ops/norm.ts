import { engine, OptionError } from "@llmeff/native";
import { accumulationDType } from "../dtype.js";
import { scope } from "../scope.js";
import { Tensor } from "../tensor.js";
import { checkFloating, contiguous } from "./arguments.js";
import { detach } from "./clone.js";
import { filled } from "./creation.js";

/** `√(Σ over all tensors of Σ x²)`, accumulated in float64; a constant, `[]`, float64 for float64 tensors, else float32. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const first = tensors[0];
  if (first === undefined) throw new OptionError("[globalNorm] expected at least one tensor; received none.");
  checkFloating("globalNorm", Object.fromEntries(tensors.map((x, i) => [`tensors[${i}]`, x])));
  const dtype = accumulationDType(first.dtype);
  const nonEmpty = tensors.filter((x) => x.size > 0);
  if (nonEmpty.length === 0) return filled(0, dtype, [], first.deviceNumber);
  return scope(() => {
    const flat = nonEmpty.map((x) => contiguous(detach(x)));
    const out = Tensor.allocate(dtype, [], first.deviceNumber);
    engine().op.globalNorm(
      flat.map((x) => x.handle),
      out.handle,
    );
    return out;
  });
}
