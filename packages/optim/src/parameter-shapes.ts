/**
 * Shapes of parameters: tensors have theirs, of typed arrays they are given by name.
 */
import { OptionError, ShapeError } from "@llmeff/native";
import { Tensor } from "@llmeff/tensor";
import { show } from "./check.js";
import { preview } from "./groups.js";
import { own } from "./records.js";
import { type Parameter, sizeOf } from "./storage.js";

/** Shapes of typed arrays by the names of the parameters. */
export type Shapes = Readonly<Record<string, readonly number[]>>;

/**
 * The shape of every parameter by name.
 *
 * @throws {ShapeError} for a shape that its array can't have
 * @throws {OptionError} for shapes of what is no parameter
 */
export function shapesOf(
  where: string,
  params: Readonly<Record<string, Parameter>>,
  shapes: Shapes,
): Map<string, readonly number[]> {
  const given: unknown = shapes;
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new OptionError(`[${where}] shapes must be an object of shapes by parameter; received ${show(given)}.`);
  }
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(params, name));
  if (unknown !== undefined) {
    throw new OptionError(
      `[${where}] shapes["${unknown}"] is for no parameter. Parameters: ${preview(Object.keys(params))}.`,
    );
  }
  return new Map(
    Object.entries(params).map(([name, value]) => [name, shapeOfParameter(where, name, value, own(shapes, name))]),
  );
}

/** The shape of a parameter: its own, or for a typed array the one given for it, or its length. */
export function shapeOfParameter(
  where: string,
  name: string,
  value: Parameter,
  given?: readonly number[],
): readonly number[] {
  if (value instanceof Tensor) return value.shape;
  const length = sizeOf(value);
  if (given === undefined) return [length];
  if (!Array.isArray(given) || !given.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new ShapeError(
      `[${where}] shapes["${name}"] must be an array of non-negative integers; received ${show(given)}.`,
    );
  }
  if (given.reduce((size, n) => size * n, 1) !== length) {
    throw new ShapeError(`[${where}] shapes["${name}"] is [${given.join(", ")}] but the array has ${length} elements.`);
  }
  return [...given]; // what the caller does with its array later must not change what the state was made for
}
