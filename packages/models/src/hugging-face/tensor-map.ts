/** How tensors of a checkpoint become a model's parameters and back, without a bit lost. */
import { concat, reshape, slice, split, stack, type Tensor, transpose } from "@llmeff/tensor";

export interface NamedShape {
  name: string;
  shape: readonly number[];
}

/** Some parameters and the tensors of a checkpoint that hold the same numbers. */
export interface TensorMapping {
  ours: readonly string[];
  theirs: readonly NamedShape[];
  /** Parameters, in the order of `ours`, of tensors in the order of `theirs`. */
  read(theirs: readonly Tensor[]): Tensor[];
  write(ours: readonly Tensor[]): Tensor[];
}

/** A parameter under another name, or the same. */
export function renamed(ours: string, theirs: string, shape: readonly number[]): TensorMapping {
  const same = (tensors: readonly Tensor[]) => [...tensors];
  return { ours: [ours], theirs: [{ name: theirs, shape }], read: same, write: same };
}

/** A matrix that the checkpoint holds as `[in, out]`. */
export function transposed(ours: string, theirs: string, [rows, columns]: readonly number[]): TensorMapping {
  const turn = ([x]: readonly Tensor[]) => [transpose(x!).clone()];
  return { ours: [ours], theirs: [{ name: theirs, shape: [columns!, rows!] }], read: turn, write: turn };
}

/** One parameter `[N, …]` of `N` tensors `[…]`. */
export function stacked(ours: string, theirs: readonly string[], shape: readonly number[]): TensorMapping {
  const inner = shape.slice(1);
  return {
    ours: [ours],
    theirs: theirs.map((name) => ({ name, shape: inner })),
    read: (parts) => [stack([...parts])],
    write: ([whole]) => theirs.map((_, i) => reshape(slice(whole!, 0, i, i + 1), inner).clone()),
  };
}

/** Parameters that lie one after the other on the last axis of one tensor, matrices as `[in, out]`. */
export function joined(ours: readonly string[], theirs: string, shapes: readonly (readonly number[])[]): TensorMapping {
  const matrices = shapes[0]!.length === 2;
  const sizes = shapes.map(([rows]) => rows!);
  const total = sizes.reduce((a, b) => a + b, 0);
  const turn = (x: Tensor) => (matrices ? transpose(x) : x);
  return {
    ours,
    theirs: [{ name: theirs, shape: matrices ? [shapes[0]![1]!, total] : [total] }],
    read: ([whole]) => split(whole!, sizes, -1).map((part) => turn(part).clone()),
    write: (parts) => [concat(parts.map(turn), -1).clone()],
  };
}
