/**
 * Parameter groups: which hyper-parameters each parameter is stepped with.
 */
import { OptionError } from "@llmeff/native";

/** Chooses parameters: names that a pattern matches, a list of names, or a test of name and shape. */
export type ParameterFilter = RegExp | readonly string[] | ((name: string, shape: readonly number[]) => boolean);

/** Hyper-parameters for some of the parameters; the first group that chooses a parameter gets it. */
export type ParamGroup<H> = Partial<H> & { params: ParameterFilter };

/** A group as an optimizer uses it. The hyper-parameters may be changed between steps. */
export type ResolvedGroup<H> = H & {
  /** Names of the group's parameters. */
  readonly params: readonly string[];
};

/** Chooses vectors and scalars (norm weights, biases): `groups: [{ params: vectors, weightDecay: 0 }]`. */
export function vectors(_name: string, shape: readonly number[]): boolean {
  return shape.length < 2;
}

/** Sorts parameters into the groups, and those that no group chooses into a last one with the defaults. Empty groups stay, in place. */
export function resolveGroups<H extends object>(
  where: string,
  shapes: ReadonlyMap<string, readonly number[]>,
  defaults: H,
  groups: readonly ParamGroup<H>[],
  check: (where: string, hyper: H) => void,
): ResolvedGroup<H>[] {
  const filters = groups.map((group, i) => toTest(`${where}] [groups[${i}]`, group.params, shapes));
  const members: string[][] = [...groups.map(() => []), []];
  for (const [name, shape] of shapes) {
    const chosen = filters.findIndex((test) => test(name, shape));
    members.at(chosen)!.push(name);
  }
  return members.map((names, i) => {
    const { params: _, ...own } = groups[i] ?? { params: [] };
    const hyper = { ...defaults, ...own } as H;
    check(i < groups.length ? `${where}] [groups[${i}]` : where, hyper);
    return { ...hyper, params: names };
  });
}

function toTest(
  where: string,
  filter: ParameterFilter,
  shapes: ReadonlyMap<string, readonly number[]>,
): (name: string, shape: readonly number[]) => boolean {
  if (filter instanceof RegExp) return (name) => name.search(filter) >= 0;
  if (typeof filter === "function") return filter;
  if (!Array.isArray(filter)) {
    throw new OptionError(
      `[${where}] params must be a RegExp, a list of names or a function; received ${String(filter)}.`,
    );
  }
  for (const name of filter) {
    if (!shapes.has(name)) {
      throw new OptionError(`[${where}] there is no parameter "${name}". Parameters: ${preview([...shapes.keys()])}.`);
    }
  }
  return (name) => filter.includes(name);
}

/** The first names of a list. */
export function preview(names: readonly string[]): string {
  return names.length > 8 ? `${names.slice(0, 8).join(", ")}, … (${names.length})` : names.join(", ");
}
