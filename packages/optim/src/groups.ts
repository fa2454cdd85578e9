/**
 * Parameter groups: which hyper-parameters each parameter is stepped with.
 */
import { OptionError } from "@llmeff/native";
import { checkBoolean } from "./check.js";
import { own } from "./records.js";

/** Chooses parameters: names that a pattern matches, a list of names, or a test of name and shape. */
export type ParameterFilter = RegExp | readonly string[] | ((name: string, shape: readonly number[]) => boolean);

/** Hyper-parameters for some of the parameters; the first group that chooses a parameter gets it. */
export type ParamGroup<H> = Partial<H> & {
  params: ParameterFilter;
  /** `true`: never stepped; gradients of these parameters are ignored, and no state is kept of them. Fixed when the optimizer is made. */
  frozen?: boolean;
};

/** A group as an optimizer uses it. The hyper-parameters may be changed between steps. */
export type ResolvedGroup<H> = H & {
  /** Names of the group's parameters. */
  readonly params: readonly string[];
  /** Absent unless the group is frozen. */
  readonly frozen?: true;
};

/** Chooses vectors and scalars (norm weights, biases): `groups: [{ params: vectors, weightDecay: 0 }]`. */
export function vectors(_name: string, shape: readonly number[]): boolean {
  return shape.length < 2;
}

/** Chooses parameters with two or more axes. */
export function matrices(_name: string, shape: readonly number[]): boolean {
  return shape.length >= 2;
}

/**
 * Chooses the tables at a model's ends, by the names that are usual for them: `embed_tokens`, `wte`, `wpe`, `word_embeddings`, `patch_embed`, and the
 * `lm_head`, `head` or `output` that turns features into logits.
 */
export function embeddings(name: string): boolean {
  return name.split(".").some((part) => /embed|^(wte|wpe|lm_head|head|output)$/.test(part));
}

/** Chooses what `filter` doesn't. */
export function not(filter: ParameterFilter): ParameterFilter {
  return (name, shape) => !chooses(filter, name, shape);
}

/** Chooses what all of the filters choose. */
export function allOf(...filters: readonly ParameterFilter[]): ParameterFilter {
  return (name, shape) => filters.every((filter) => chooses(filter, name, shape));
}

/** Chooses what any of the filters chooses. */
export function anyOf(...filters: readonly ParameterFilter[]): ParameterFilter {
  return (name, shape) => filters.some((filter) => chooses(filter, name, shape));
}

/** Whether a filter chooses a parameter. */
export function chooses(filter: ParameterFilter, name: string, shape: readonly number[]): boolean {
  if (filter instanceof RegExp) return name.search(filter) >= 0;
  return typeof filter === "function" ? filter(name, shape) : filter.includes(name);
}

/** Sorts parameters into the groups, and those that no group chooses into a last one with the defaults. Empty groups stay, in place. */
export function resolveGroups<H extends object>(
  where: string,
  shapes: ReadonlyMap<string, readonly number[]>,
  defaults: H,
  groups: readonly ParamGroup<H>[],
  check: (where: string, hyper: H) => void,
): ResolvedGroup<H>[] {
  const filters = groups.map((group, i) => toTest(`${where}] [groups[${i}]`, group.params, [...shapes.keys()]));
  const members: string[][] = [...groups.map(() => []), []];
  for (const [name, shape] of shapes) {
    const chosen = filters.findIndex((test) => test(name, shape));
    members.at(chosen)!.push(name);
  }
  return members.map((names, i) => {
    const { params: _, frozen = false, ...own } = groups[i] ?? { params: [] };
    const at = i < groups.length ? `${where}] [groups[${i}]` : where;
    checkBoolean(at, "frozen", frozen);
    const hyper = { ...defaults, ...own } as unknown as H;
    check(at, hyper);
    return { ...hyper, params: names, ...(frozen ? { frozen: true as const } : {}) };
  });
}

/** The test of a filter, after checking that it is one, and that the names it lists are among those. */
export function toTest(
  where: string,
  filter: ParameterFilter,
  names: readonly string[],
): (name: string, shape: readonly number[]) => boolean {
  if (Array.isArray(filter)) {
    for (const name of filter) {
      if (!names.includes(name)) {
        throw new OptionError(`[${where}] there is no parameter "${name}". Parameters: ${preview(names)}.`);
      }
    }
  } else if (!(filter instanceof RegExp) && typeof filter !== "function") {
    throw new OptionError(
      `[${where}] params must be a RegExp, a list of names or a function; received ${String(filter)}.`,
    );
  }
  return (name, shape) => chooses(filter, name, shape);
}

/** Tells which parameters decay; `before`: those that others may have been added to, of which a list may name some. */
export function decayTest(
  where: string,
  decay: "all" | "matrices" | ParameterFilter,
  params: Readonly<Record<string, object>>,
  shapes: Readonly<Record<string, readonly number[]>>,
  before: Readonly<Record<string, object>> = {},
): (name: string, shape: readonly number[]) => boolean {
  if (decay === "all") return () => true;
  if (decay !== "matrices") {
    if (typeof decay === "string") {
      throw new OptionError(
        `[${where}] decay must be "all", "matrices" or a filter of parameters; received "${decay}".`,
      );
    }
    return toTest(`${where}] [decay`, decay, Object.keys({ ...before, ...params }));
  }
  const shapeless = Object.keys(params).find((name) => !own(shapes, name) && !("rank" in params[name]!));
  if (shapeless !== undefined) {
    throw new OptionError(
      `[${where}] decay "matrices" needs to know which typed arrays are matrices; give shapes: { "${shapeless}": [rows, columns], … }.`,
    );
  }
  return (_name, shape) => shape.length >= 2;
}

/** The first names of a list. */
export function preview(names: readonly string[]): string {
  return names.length > 8 ? `${names.slice(0, 8).join(", ")}, … (${names.length})` : names.join(", ");
}
