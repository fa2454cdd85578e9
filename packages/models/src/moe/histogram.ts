import {
  add,
  concat,
  equal,
  floorDivide,
  full,
  matmul,
  remainder,
  reshape,
  scope,
  slice,
  sum,
  type Tensor,
  transpose,
  zeros,
} from "@llmeff/tensor";
import { countUp } from "./dispatch.js";

/** Ids that are counted at a time, and those of one product. */
const blockSize = 2 ** 16;
const groupSize = 2 ** 10;
/** So many kinds of ids are compared with all of them; more by their two digits. */
const fewKinds = 32;

/**
 * How often each of `count` ids occurs, int32 `[count]`, by comparing: few ids that occur often are the worst case of scattering, which adds up one after the
 * other where the order is to be the same every time.
 *
 * To compare each of `A` ids with each of `E` kinds takes memory for `A · E`. Written as two digits to the base `√E`, the one-hots of both have `2 · √E`
 * columns, and the product of one transposed with the other has the counts of all pairs of digits. In blocks, so that memory beside the ids is bounded;
 * products of groups are summed, which gives a GPU as many to compute side by side. Counts are exact: none of a block is beyond 2²⁴.
 *
 * @param ids - int32, in 0 … count − 1
 */
export function histogram(ids: Tensor, count: number): Tensor {
  return scope(() => {
    const flat = reshape(ids, [ids.size]);
    let total = zeros([count], { dtype: "int32", device: ids.device });
    for (let from = 0; from < ids.size; from += blockSize) {
      const block = slice(flat, 0, from, Math.min(from + blockSize, ids.size));
      const counts = scope(() =>
        count <= fewKinds ? sum(oneHots(block, count), { axis: 0 }) : byDigits(block, count),
      );
      total = add(total, counts.astype("int32"));
    }
    return total;
  });
}

/** float32 `[…, size]` */
function oneHots(ids: Tensor, size: number): Tensor {
  return equal(reshape(ids, [...ids.shape, 1]), countUp(size, ids.device)).astype("float32");
}

/** float32 `[count]` */
function byDigits(ids: Tensor, count: number): Tensor {
  const base = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / base);
  const groups = Math.ceil(ids.size / groupSize);
  const rest = groups * groupSize - ids.size;
  // -1 has no first digit, and is counted nowhere.
  const none = full([rest], -1, { dtype: "int32", device: ids.device });
  const padded = reshape(rest > 0 ? concat([ids, none], 0) : ids, [groups, groupSize]);
  const first = oneHots(floorDivide(padded, base), rows);
  const second = oneHots(remainder(padded, base), base);
  const pairs = sum(matmul(transpose(first, 1, 2), second), { axis: 0 });
  return slice(reshape(pairs, [rows * base]), 0, 0, count);
}
