/**
 * The state of an optimizer as named arrays and plain data, and the checks of one that is to be loaded.
 */
import { FormatError } from "@llmeff/native";
import { preview } from "./groups.js";
import type { OptimizerState, Slot, StateHolder } from "./optimizer-types.js";
import { count, finite, type NumberDomain, requireValues, type StateDomains } from "./state-values.js";
import { type Parameter, portrait, type Storage } from "./storage.js";

/** State arrays by name. */
export function namedArrays<P>(holders: readonly StateHolder<P>[]): Record<string, P> {
  return named(holders, ({ state }) => state);
}

/** Counts and other numbers by name. */
export function namedNumbers<P>(holders: readonly StateHolder<P>[]): Record<string, number> {
  return named(holders, ({ numbers }) => numbers);
}

function named<P, T>(
  holders: readonly StateHolder<P>[],
  entriesOf: (holder: StateHolder<P>) => Readonly<Record<string, T>>,
): Record<string, T> {
  return Object.fromEntries(
    holders.flatMap((holder) =>
      Object.entries(entriesOf(holder)).map(([key, value]) => [`${holder.name}.${key}`, value]),
    ),
  );
}

/**
 * Checks that a saved state is one of `kind` with all that the holders need and nothing else, and that its numbers are finite and in their domains, and
 * returns what copies it to them.
 */
export function prepareLoad<P extends Parameter>(
  where: string,
  kind: string,
  storage: Storage<P>,
  slots: readonly Slot<P>[],
  shared: readonly StateHolder<P>[],
  domains: StateDomains,
  saved: OptimizerState<P>,
): () => void {
  const { tensors, meta } = requireKind(where, kind, saved);
  const holders = [...slots, ...shared];
  const arrays = namedArrays(holders);
  for (const [name, array] of Object.entries(arrays)) {
    const other: unknown = tensors[name];
    if (other === undefined) {
      throw new FormatError(`[${where}] "${name}" is missing. The state has ${preview(Object.keys(tensors))}.`);
    }
    if (portrait(other) !== portrait(array)) {
      throw new FormatError(`[${where}] "${name}" must be a ${portrait(array)}; received a ${portrait(other)}.`);
    }
    if ((other as { disposed?: boolean }).disposed) throw new FormatError(`[${where}] "${name}" was disposed.`);
  }
  const unknown = Object.keys(tensors).filter((name) => !(name in arrays));
  if (unknown.length > 0)
    throw new FormatError(`[${where}] no parameter uses ${preview(unknown)}. Is this another model's state?`);
  for (const { name } of slots) requireNumber(where, "meta.steps", meta.steps, name, count);
  for (const holder of holders) {
    for (const key of Object.keys(holder.numbers)) {
      requireNumber(where, "meta.numbers", meta.numbers, `${holder.name}.${key}`, domains.numbers?.[key] ?? finite);
    }
  }
  // What takes longest, last.
  for (const holder of holders) {
    for (const key of Object.keys(holder.state)) {
      const name = `${holder.name}.${key}`;
      requireValues(where, name, tensors[name]!, domains.notNegative?.includes(key) ?? false);
    }
  }
  return () => {
    for (const [name, array] of Object.entries(arrays)) storage.assign(array, tensors[name]!);
    for (const holder of holders) {
      for (const key of Object.keys(holder.numbers)) holder.numbers[key] = meta.numbers![`${holder.name}.${key}`]!;
    }
    for (const slot of slots) slot.steps = meta.steps[slot.name]!;
  };
}

/** The state, if it is that of an optimizer of this kind. */
export function requireKind<P extends Parameter>(
  where: string,
  kind: string,
  saved: OptimizerState<P>,
): OptimizerState<P> {
  const { tensors, meta } = (saved ?? {}) as Partial<OptimizerState<P>>;
  if (meta?.format !== 1 || meta.optimizer !== kind) {
    throw new FormatError(
      `[${where}] expected the state of ${kind}, format 1; received ${String(meta?.optimizer)}, format ${String(meta?.format)}.`,
    );
  }
  if (typeof tensors !== "object" || tensors === null) {
    throw new FormatError(`[${where}] expected arrays by name in "tensors"; received ${String(tensors)}.`);
  }
  if (!count.has(meta.stepCount)) {
    throw new FormatError(`[${where}] meta.stepCount must be ${count.domain}; received ${String(meta.stepCount)}.`);
  }
  return { tensors, meta };
}

function requireNumber(
  where: string,
  field: string,
  values: Readonly<Record<string, number>> | undefined,
  name: string,
  { domain, has }: NumberDomain,
): void {
  const value: unknown = values?.[name];
  if (typeof value === "number" && has(value)) return;
  throw new FormatError(`[${where}] ${field}["${name}"] must be ${domain}; received ${String(value)}.`);
}
