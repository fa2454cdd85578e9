/**
 * Several optimizers, each for some of the parameters, as one.
 */
import { OptionError } from "@llmeff/native";
import { hostEffect, type Tensor } from "@llmeff/tensor";
import { checkKeys, checkPositive, requireOptions, show } from "./check.js";
import { AdamW, type AdamWOptions } from "./fused-adamw.js";
import { requireOneKind } from "./grad-checks.js";
import { GradGuard, type GradGuardOptions, knownNorm, requireUnguarded } from "./grad-guard.js";
import {
  allOf,
  embeddings,
  matrices,
  not,
  type ParameterFilter,
  preview,
  type ResolvedGroup,
  toTest,
} from "./groups.js";
import { StepHooks } from "./hooks.js";
import { BaseOptimizer, checkLearningRate } from "./optimizer.js";
import type { CommonHyper, HyperSummary, Optimizer, OptimizerState, StepOptions } from "./optimizer-types.js";
import { type Shapes, shapesOf } from "./parameter-shapes.js";
import { merged, pick } from "./records.js";
import { requireKind } from "./saved-state.js";
import { asSchedule, type ScalarOrSchedule } from "./schedules.js";
import { refuseChange } from "./step-numbers.js";
import { type Parameter, type Storage, storageOf } from "./storage.js";

// biome-ignore lint/suspicious/noExplicitAny: an optimizer's hyper-parameters are its own affair here.
type Part<P extends Parameter> = BaseOptimizer<P, CommonHyper & any>;

/** An optimizer for some of the parameters. */
export interface Route<P extends Parameter = Tensor> {
  /** Which; each parameter goes to the first route that chooses it. Absent in the last route only: all that are left. */
  params?: ParameterFilter;
  /** Makes the optimizer for these parameters, without `maxGradNorm` and `nonFinite`; `shapes` are those given for typed arrays. */
  optimizer: (params: Record<string, P>, shapes: Shapes) => Part<P>;
  /** This route's learning rate by that of all, if there is one for all. Default 1. */
  learningRateFactor?: number;
}

export interface RouteOptions extends GradGuardOptions {
  /** One learning rate for all routes, times their factors. Absent: every optimizer has its own. */
  learningRate?: ScalarOrSchedule;
  /** Shapes of typed arrays by name. */
  shapes?: Shapes;
}

/**
 * One optimizer that steps each parameter with the rule of its route: `maxGradNorm` and `nonFinite` look at the gradients of all, a step is taken by
 * all or by none, and there is one saved state.
 *
 * @throws {OptionError} for a route that chooses no parameter, or a parameter that no route chooses
 *
 * @example
 * const optimizer = route(
 *   params,
 *   [
 *     { params: allOf(matrices, not(embeddings)), optimizer: (p) => new Sonew(p, { eps: 1e-6 }), learningRateFactor: 2 },
 *     { optimizer: (p) => new AdamW(p, { weightDecay: 0 }) },
 *   ],
 *   { learningRate: cosine(1e-3, 1000), maxGradNorm: 1 },
 * );
 */
export function route<P extends Parameter>(
  params: Readonly<Record<string, P>>,
  routes: readonly Route<P>[],
  options: RouteOptions = {},
): RoutedOptimizer<P> {
  return new RoutedOptimizer(params, routes, options);
}

export interface MatricesToOptions extends RouteOptions {
  /** Options of the AdamW that steps the rest. */
  adamw?: Omit<AdamWOptions, keyof GradGuardOptions | "shapes">;
  /** The rate of the matrices by that of the rest, if `learningRate` is given for both. Default 1. */
  learningRateFactor?: number;
  /** Matrices that AdamW steps nevertheless. Default: `embeddings`, tables of tokens and positions, and the head. */
  except?: ParameterFilter;
}

/**
 * Routes the hidden matrices to one optimizer, and embeddings, head and vectors to AdamW, as users of Muon and SOAP do.
 *
 * @example
 * const optimizer = matricesTo(params, (p) => new Sonew(p, { learningRate: 2e-3 }), { adamw: { learningRate: 3e-4 }, maxGradNorm: 1 });
 */
export function matricesTo<P extends Parameter>(
  params: Readonly<Record<string, P>>,
  optimizer: Route<P>["optimizer"],
  options: MatricesToOptions = {},
): RoutedOptimizer<P> {
  requireOptions("matricesTo", options);
  const { adamw = {}, learningRateFactor = 1, except = embeddings, ...common } = options;
  const hidden = { params: allOf(matrices, not(except)), optimizer, learningRateFactor };
  return route(params, [hidden, { optimizer: (rest, shapes) => new AdamW(rest, { ...adamw, shapes }) }], common);
}

/** See `route`. */
export class RoutedOptimizer<P extends Parameter> implements Optimizer<P> {
  /** The optimizers of the routes, to look at them. Don't step them one by one. */
  readonly parts: readonly Part<P>[];
  readonly hooks = new StepHooks<P>();
  readonly #factors: readonly number[];
  readonly #storage: Storage<P>;
  readonly #guard: GradGuard<P>;
  #learningRate: ScalarOrSchedule | undefined;
  #stepCount = 0;

  constructor(params: Readonly<Record<string, P>>, routes: readonly Route<P>[], options: RouteOptions = {}) {
    checkKeys("route", options, ["learningRate", "shapes", "maxGradNorm", "nonFinite"]);
    const { learningRate, shapes = {} } = options;
    this.#storage = storageOf("route", params);
    this.#guard = new GradGuard("route", this.#storage, options);
    const made = sortIntoRoutes(params, shapes, routes).map(({ route, names, where }) => ({
      part: makePart(where, route, pick(params, names), pick(shapes, names)),
      factor: route.learningRateFactor ?? 1,
    }));
    this.parts = made.map(({ part }) => part);
    this.#factors = made.map(({ factor }) => factor);
    if (learningRate !== undefined) this.learningRate = learningRate;
  }

  /** The parameters by name, in the order of the routes. */
  get params(): Readonly<Record<string, P>> {
    return merged(this.parts.map((part) => part.params));
  }

  get kind(): string {
    return `route(${this.parts.map((part) => part.kind).join(",")})`;
  }

  get stepCount(): number {
    return this.#stepCount;
  }

  /** Without a rate for all routes: the first one's. Assigning gives all of them one, times their factors. */
  get learningRate(): number {
    return this.#learningRate === undefined
      ? this.parts[0]!.learningRate
      : asSchedule(this.#learningRate)(this.#stepCount);
  }
  set learningRate(value: ScalarOrSchedule) {
    checkLearningRate("route", value);
    this.#learningRate = value;
    const schedule = asSchedule(value);
    for (const [i, part] of this.parts.entries()) {
      const factor = this.#factors[i]!;
      part.learningRate = typeof value === "number" ? factor * value : (step: number) => factor * schedule(step);
    }
  }

  get paramGroups(): readonly ResolvedGroup<object>[] {
    return this.parts.flatMap((part) => part.paramGroups);
  }

  step(grads: Readonly<Record<string, P>>, options: StepOptions = {}): void {
    this.#guard.throwFailure();
    const gradNorm = knownNorm("route", options);
    const asGiven = ![this, ...this.parts].some(({ hooks }) => hooks.seesGrads);
    const chosen = this.hooks.before("route.step", grads);
    const known = new Set(this.parts.flatMap(namesOf));
    for (const name of Object.keys(chosen)) {
      if (known.has(name) || chosen[name] === undefined) continue;
      throw new OptionError(`[route.step] there is no parameter "${name}". Parameters: ${preview([...known])}.`);
    }
    const shares = this.parts.map((part) => part.hooks.before("route.step", pick(chosen, namesOf(part))));
    this.#storage.run(() => {
      const measured = this.parts.flatMap((part, i) =>
        part.checkStep(shares[i]!).map((name) => [name, shares[i]![name]!] as const),
      );
      requireOneKind("route.step", measured);
      const dense = this.#guard.measures ? measured.map(([, grad]) => this.#storage.contiguous(grad)) : [];
      const norm = asGiven && measured.length === Object.keys(grads).length ? gradNorm : undefined;
      const factor = this.#guard.factor(dense, () => this.#stepCount, norm);
      // What fails until all are ready fails the whole step.
      const ready = this.parts.map((part, i) => part.prepareStep(shares[i]!, factor));
      for (const take of ready) take();
    });
    hostEffect(() => this.#stepCount++);
    for (const { hooks } of [...this.parts, this]) hooks.after();
  }

  async gradNorm(): Promise<number | undefined> {
    return this.#guard.norm();
  }

  async settled(): Promise<void> {
    await this.#guard.settled();
  }

  stateDict(): OptimizerState<P> {
    const states = this.parts.map((part) => part.stateDict());
    const numbers = merged(states.map(({ meta }) => meta.numbers));
    return {
      tensors: merged(states.map(({ tensors }) => tensors)),
      meta: {
        optimizer: this.kind,
        format: 1,
        stepCount: this.#stepCount,
        steps: merged(states.map(({ meta }) => meta.steps)),
        ...(Object.keys(numbers).length > 0 ? { numbers } : {}),
        hyper: {
          ...this.#guard.summary(),
          groups: states.flatMap(({ meta }) => groupsOf(meta)),
        },
      },
    };
  }

  loadStateDict(saved: OptimizerState<P>): void {
    const where = "route.loadStateDict";
    refuseChange(where);
    const { tensors, meta } = requireKind(where, this.kind, saved);
    const own = this.parts.map((part) => part.stateDict());
    const known = new Set(own.flatMap((state) => Object.keys(state.tensors)));
    const unknown = Object.keys(tensors).filter((name) => !known.has(name));
    // The last part names what no part knows.
    const loads = this.parts.map((part, i) => {
      const names = [...Object.keys(own[i]!.tensors), ...(i === this.parts.length - 1 ? unknown : [])];
      const share = { tensors: pick(tensors, names), meta: { ...meta, optimizer: part.kind } };
      return part.prepareLoad(where, share);
    });
    for (const load of loads) load();
    this.#stepCount = meta.stepCount;
  }

  stateBytes(): number {
    return this.parts.reduce((bytes, part) => bytes + part.stateBytes(), 0);
  }

  dispose(): void {
    for (const part of this.parts) part.dispose();
    this.#guard.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Which parameters go to which route, in the order of the routes; a last route without parameters is left out. */
function sortIntoRoutes<P extends Parameter>(
  params: Readonly<Record<string, P>>,
  shapes: Shapes,
  routes: readonly Route<P>[],
): { route: Route<P>; names: string[]; where: string }[] {
  const names = Object.keys(params);
  if (!Array.isArray(routes)) throw new OptionError(`[route] routes must be an array; received ${show(routes)}.`);
  for (const [i, route] of routes.entries()) {
    checkKeys(`route] [routes[${i}]`, route, ["params", "optimizer", "learningRateFactor"]);
  }
  const tests = routes.map(({ params: filter }, i) => {
    if (filter !== undefined) return toTest(`route] [routes[${i}]`, filter, names);
    if (i === routes.length - 1) return () => true;
    throw new OptionError(`[route] routes[${i}] has no params, which only the last route may leave out.`);
  });
  const chosen = routes.map((): string[] => []);
  for (const [name, shape] of shapesOf("route", params, shapes)) {
    const place = tests.findIndex((test) => test(name, shape));
    if (place < 0) {
      throw new OptionError(`[route] no route chooses "${name}". Add a last route without params for what is left.`);
    }
    chosen[place]!.push(name);
  }
  return routes.flatMap((route, i) => {
    if (chosen[i]!.length > 0) return [{ route, names: chosen[i]!, where: `route] [routes[${i}]` }];
    if (route.params === undefined) return [];
    throw new OptionError(`[route] routes[${i}] chooses no parameter. Parameters: ${preview(names)}.`);
  });
}

function makePart<P extends Parameter>(
  where: string,
  { optimizer, learningRateFactor = 1 }: Route<P>,
  params: Record<string, P>,
  shapes: Shapes,
): Part<P> {
  checkPositive(where, "learningRateFactor", learningRateFactor);
  if (typeof optimizer !== "function") {
    throw new OptionError(`[${where}] optimizer must be a function that makes one; received ${show(optimizer)}.`);
  }
  const part: unknown = optimizer(params, shapes);
  if (!(part instanceof BaseOptimizer)) {
    throw new OptionError(`[${where}] optimizer must return an optimizer of @llmeff/optim; received ${String(part)}.`);
  }
  requireUnguarded("route", part.kind, part.guard);
  const [got, want] = [Object.keys(part.params), Object.keys(params)];
  if (got.length !== want.length || want.some((name) => !got.includes(name))) {
    throw new OptionError(
      `[${where}] optimizer must be made for the parameters it is given (${preview(want)}); received one for ${preview(got)}.`,
    );
  }
  const other = want.find((name) => part.params[name] !== params[name]);
  if (other !== undefined) {
    throw new OptionError(
      `[${where}] optimizer must be made for the parameters it is given; in the one received "${other}" is another array. Use what the function is called with: (p) => new AdamW(p).`,
    );
  }
  return part;
}

function namesOf<P extends Parameter>(part: Part<P>): string[] {
  return part.paramGroups.flatMap((group) => group.params);
}

/** A part's groups, each with the name of its optimizer and what decays in it. */
function groupsOf({ optimizer, hyper }: OptimizerState<Parameter>["meta"]): HyperSummary["groups"] {
  return hyper!.groups.map((group) => ({ optimizer, decay: hyper!.decay ?? "all", ...group }));
}
