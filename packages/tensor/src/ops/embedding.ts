import { engine, ShapeError } from "@llmeff/native";
import { defineOp } from "../autograd.js";
import { formatShape } from "../shape.js";
import { rememberCallSite, Tensor } from "../tensor.js";
import { checkFloating, checkIds, contiguous } from "./arguments.js";

const embeddingOp = defineOp<undefined>({
  name: "embedding",
  inputNames: ["table", "ids"],
  forward(context, [table, ids]) {
    const out = Tensor.allocate(table!.dtype, [...ids!.shape, table!.shape[1]!]);
    const flatIds = contiguous(ids!);
    rememberCallSite(engine().op.embedding(contiguous(table!).handle, flatIds.handle, out.handle));
    context.save(flatIds);
    return out;
  },
  backward({ saved: [ids], shapes: [shape] }, dout) {
    const dtable = Tensor.allocate(dout.dtype, shape!);
    engine().op.embeddingGrad(contiguous(dout).handle, ids!.handle, dtable.handle);
    return [dtable, null];
  },
});

/**
 * Rows of a table, `out[…, :] = table[ids[…], :]`.
 *
 * @param table - `[V, C]`
 * @param ids - `[…]` int32
 * @returns `[…, C]`
 * @throws {IndexOutOfRangeError} when the values are read, if an id is outside `0..V-1`
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  checkFloating("embedding", { table });
  checkIds("embedding", "ids", ids);
  if (table.rank !== 2 || table.shape[0] === 0) {
    throw new ShapeError(`[embedding] table must be [V, C] with V > 0; received ${formatShape(table.shape)}.`);
  }
  return embeddingOp([table, ids], undefined);
}
