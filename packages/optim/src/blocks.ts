/**
 * Tensors as batches of equal blocks, whose products and decompositions then run together.
 */
import type { Tensor } from "@llmeff/tensor";
import { batchKey, batchOf, groupBy, itemOf, type Leaves } from "./leaves.js";
import { type Block, blocksOf, blockView, joinBlocks } from "./merge-dims.js";

/** One block of one tensor. */
export interface Piece {
  readonly path: string;
  /** Which block of its tensor. */
  readonly index: number;
  readonly tensor: Tensor;
}

/** Blocks of one shape, of any tensors. */
export interface BlockBatch {
  readonly pieces: readonly Piece[];
  /** Of a block. */
  readonly shape: readonly number[];
  /** `[N, …shape]` */
  readonly stacked: () => Tensor;
}

/** All blocks of all tensors, in batches of one shape. */
export function blockBatches(tensors: Leaves, blockSize: number): BlockBatch[] {
  const pieces = [...tensors].flatMap(([path, x]) =>
    blocksOf(x.shape, blockSize).map((block, index) => ({ path, index, tensor: blockView(x, block) })),
  );
  return groupBy(pieces, ({ tensor }) => batchKey(tensor)).map((group) => ({
    pieces: group,
    shape: group[0]!.tensor.shape,
    stacked: () => batchOf(group.map(({ tensor }) => tensor)),
  }));
}

/** Collects what becomes of the pieces. */
export class PieceMap<T> {
  readonly #byPath = new Map<string, T[]>();

  set({ path, index }: Piece, value: T): void {
    const values = this.#byPath.get(path) ?? [];
    values[index] = value;
    this.#byPath.set(path, values);
  }

  /** The values of a tensor's blocks, in order. */
  of(path: string): readonly T[] {
    return this.#byPath.get(path) ?? [];
  }

  paths(): IterableIterator<string> {
    return this.#byPath.keys();
  }
}

/** Puts the results of a batch in the places of its pieces. */
export function distribute(batch: BlockBatch, results: Tensor, into: PieceMap<Tensor>): void {
  for (const [i, piece] of batch.pieces.entries()) into.set(piece, itemOf(results, i));
}

/** Tensors put together from their blocks. */
export function assemble(like: Leaves, parts: PieceMap<Tensor>, blockSize: number): Leaves {
  const join = (x: Tensor, path: string) => {
    const blocks: Block[] = blocksOf(x.shape, blockSize);
    return joinBlocks(x.shape, blocks, parts.of(path));
  };
  return new Map([...like].map(([path, x]) => [path, join(x, path)]));
}
