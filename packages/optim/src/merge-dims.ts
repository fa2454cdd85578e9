/**
 * How tensors are seen by the Kronecker-factored methods: small neighbouring axes as one, large axes cut into blocks.
 */
import { copyInto, slice, type Tensor, zeros } from "@llmeff/tensor";

/**
 * Merges axes from left to right while their product is at most `maxDim`; axes of size 1 vanish. `[3, 1, 5, 2, 2]` with 4 gives `[3, 5, 4]`,
 * all ones give `[]`.
 *
 * A large limit makes long axes of small matrices: with 1024 a 20 × 30 matrix is one axis of 600, whose statistics have 600² numbers.
 */
export function mergeSmallDims(shape: readonly number[], maxDim: number): number[] {
  const merged: number[] = [];
  let product = 1;
  for (const size of shape) {
    if (size === 1) continue;
    if (product > 1 && product * size > maxDim) {
      merged.push(product);
      product = size;
    } else product *= size;
  }
  return product === 1 ? merged : [...merged, product];
}

/** Where a block begins and how long it is, axis by axis. */
export interface Block {
  readonly start: readonly number[];
  readonly shape: readonly number[];
}

/** The blocks of a shape: every axis cut into lengths of `blockSize`, the last one shorter; 0 cuts nothing. Last axis fastest. */
export function blocksOf(shape: readonly number[], blockSize: number): Block[] {
  let blocks: Block[] = [{ start: [], shape: [] }];
  for (const size of shape) {
    const length = blockSize === 0 ? size : blockSize;
    blocks = blocks.flatMap(({ start, shape: so }) => {
      const pieces: Block[] = [];
      for (let at = 0; at < size; at += length) {
        pieces.push({ start: [...start, at], shape: [...so, Math.min(length, size - at)] });
      }
      return pieces;
    });
  }
  return blocks;
}

/** A view of one block. */
export function blockView(x: Tensor, { start, shape }: Block): Tensor {
  return start.reduce((view, at, axis) => {
    const end = at + shape[axis]!;
    return at === 0 && end === view.shape[axis] ? view : slice(view, axis, at, end);
  }, x);
}

/** The tensor that has the given blocks; a single block is the tensor. */
export function joinBlocks(shape: readonly number[], blocks: readonly Block[], parts: readonly Tensor[]): Tensor {
  const first = parts[0]!;
  if (parts.length === 1) return first;
  const whole = zeros(shape, { dtype: first.dtype, device: first.device });
  for (const [i, block] of blocks.entries()) copyInto(blockView(whole, block), parts[i]!);
  return whole;
}
