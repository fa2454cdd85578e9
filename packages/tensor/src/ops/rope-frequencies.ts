import { OptionError } from "@llmeff/native";

/** How rotary frequencies are changed for sequences longer than those trained on; `factor` is by how much. */
export type RopeScaling =
  /** Position interpolation: every frequency divided by the factor (arXiv:2306.15595). */
  | { type: "linear"; factor: number }
  /** A larger base, which keeps the highest frequency: `base · factor^(D/(D−2))`. */
  | { type: "ntk"; factor: number }
  /** The same with a base that grows with the sequence beyond `originalLength`: `factor · length / originalLength − (factor − 1)`. */
  | { type: "dynamic"; factor: number; originalLength: number }
  | YarnScaling
  | Llama3Scaling;

/** YaRN (arXiv:2309.00071): interpolates low frequencies, keeps high ones, a ramp between them; enlarges cos and sin. */
export interface YarnScaling {
  type: "yarn";
  factor: number;
  originalLength: number;
  /** Turns within the original length from which on a frequency is kept; default 32. */
  betaFast?: number;
  /** Turns up to which it is interpolated; default 1. */
  betaSlow?: number;
  /** Ends the ramp at whole pairs; default true. */
  truncate?: boolean;
  /** Of cos and sin; default `0.1 ln factor + 1`, or with both of the next the quotient of their terms. */
  attentionFactor?: number;
  mscale?: number;
  mscaleAllDim?: number;
}

/** Llama 3.1: long wavelengths interpolated, short ones kept, those between blended. */
export interface Llama3Scaling {
  type: "llama3";
  factor: number;
  originalLength: number;
  /** Wavelengths over `originalLength / lowFrequencyFactor` are interpolated. */
  lowFrequencyFactor: number;
  /** Wavelengths under `originalLength / highFrequencyFactor` are kept. */
  highFrequencyFactor: number;
}

export interface RopeFrequencyOptions {
  /** Wavelength base; default 10 000. */
  base?: number;
  scaling?: RopeScaling;
  /** Longest sequence in view, which `dynamic` scaling depends on; default its original length. */
  length?: number;
}

export interface RopeFrequencies {
  /** Radians a position of each pair of channels, `dim / 2` numbers. */
  frequencies: Float64Array;
  /** What cos and sin are multiplied by; 1 but for YaRN. */
  attentionFactor: number;
}

function checkPositive(name: string, value: unknown): void {
  if (typeof value !== "number" || !(value > 0 && Number.isFinite(value))) {
    throw new OptionError(`[ropeFrequencies] ${name} must be a positive number; received ${value}.`);
  }
}

/** Numbers that a kind may have beside those that it needs. */
const optionalNumbers = ["betaFast", "betaSlow", "attentionFactor", "mscale", "mscaleAllDim"] as const;

/** Numbers that each kind needs beside its factor. */
const needed = {
  linear: [],
  ntk: [],
  dynamic: ["originalLength"],
  yarn: ["originalLength"],
  llama3: ["originalLength", "lowFrequencyFactor", "highFrequencyFactor"],
} as const satisfies Record<RopeScaling["type"], readonly string[]>;

function checkScaling(scaling: RopeScaling, dim: number): void {
  if (!Object.hasOwn(needed, scaling.type)) {
    throw new OptionError(
      `[ropeFrequencies] scaling.type must be one of ${Object.keys(needed).join(", ")}; received ${JSON.stringify(scaling.type)}.`,
    );
  }
  for (const name of ["factor", ...needed[scaling.type]]) {
    checkPositive(`scaling.${name}`, scaling[name as keyof RopeScaling]);
  }
  const optional: readonly string[] = scaling.type === "yarn" ? [...optionalNumbers, "truncate"] : [];
  for (const [name, value] of Object.entries(scaling)) {
    if (value === undefined || ["type", "factor", ...needed[scaling.type]].includes(name)) continue;
    if (!optional.includes(name)) {
      const known = ["factor", ...needed[scaling.type], ...optional];
      throw new OptionError(
        `[ropeFrequencies] ${scaling.type} scaling has no ${JSON.stringify(name)}; known are ${known.join(", ")}.`,
      );
    }
    if (name !== "truncate") checkPositive(`scaling.${name}`, value);
    else if (typeof value !== "boolean") {
      throw new OptionError(`[ropeFrequencies] scaling.truncate must be true or false; received ${String(value)}.`);
    }
  }
  if ((scaling.type === "ntk" || scaling.type === "dynamic") && dim <= 2) {
    throw new OptionError(`[ropeFrequencies] ${scaling.type} scaling needs dim > 2; received ${dim}.`);
  }
  if (scaling.type === "llama3" && scaling.lowFrequencyFactor >= scaling.highFrequencyFactor) {
    throw new OptionError(
      `[ropeFrequencies] scaling.highFrequencyFactor must exceed lowFrequencyFactor; received ${scaling.highFrequencyFactor} and ${scaling.lowFrequencyFactor}.`,
    );
  }
}

function unscaled(dim: number, base: number): Float64Array {
  return Float64Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim));
}

/** The base at which the lowest frequency is divided by `factor` and the highest is kept. */
function stretchedBase(base: number, factor: number, dim: number): number {
  return base * factor ** (dim / (dim - 2));
}

/** YaRN's attention factor for one of its scales. */
function enlargement(factor: number, scale = 1): number {
  return factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1;
}

function yarn(dim: number, base: number, scaling: YarnScaling): RopeFrequencies {
  const { factor, originalLength, betaFast = 32, betaSlow = 1, truncate = true, mscale, mscaleAllDim } = scaling;
  const pairTurning = (turns: number) =>
    (dim * Math.log(originalLength / (2 * Math.PI * turns))) / (2 * Math.log(base));
  const [low, high] = truncate
    ? [Math.floor(pairTurning(betaFast)), Math.ceil(pairTurning(betaSlow))]
    : [pairTurning(betaFast), pairTurning(betaSlow)];
  const from = Math.max(low, 0);
  const to = Math.min(high, dim - 1);
  const width = to === from ? 0.001 : to - from;
  const frequencies = unscaled(dim, base).map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - from) / width, 0), 1);
    return (frequency / factor) * interpolated + frequency * (1 - interpolated);
  });
  const byScales =
    mscale !== undefined && mscaleAllDim !== undefined
      ? enlargement(factor, mscale) / enlargement(factor, mscaleAllDim)
      : enlargement(factor);
  return { frequencies, attentionFactor: scaling.attentionFactor ?? byScales };
}

function llama3(frequency: number, scaling: Llama3Scaling): number {
  const { factor, originalLength, lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
  const turns = (originalLength * frequency) / (2 * Math.PI);
  const kept = Math.min(Math.max((turns - low) / (high - low), 0), 1);
  return (1 - kept) * (frequency / factor) + kept * frequency;
}

/**
 * Rotary frequencies `base^(-2i/dim)`, scaled for sequences longer than those trained on, in double precision.
 *
 * @param dim - channels that are turned, an even number
 * @throws {OptionError} naming the option that doesn't fit
 *
 * @example
 * const { frequencies } = ropeFrequencies(128, { base: 500_000, scaling: { type: "linear", factor: 4 } });
 */
export function ropeFrequencies(dim: number, options: RopeFrequencyOptions = {}): RopeFrequencies {
  const { base = 10_000, scaling } = options;
  if (!Number.isInteger(dim) || dim <= 0 || dim % 2 !== 0) {
    throw new OptionError(`[ropeFrequencies] dim must be a positive even integer; received ${dim}.`);
  }
  checkPositive("base", base);
  if (scaling === undefined) return { frequencies: unscaled(dim, base), attentionFactor: 1 };
  checkScaling(scaling, dim);
  const { factor } = scaling;
  const plain = (frequencies: Float64Array) => ({ frequencies, attentionFactor: 1 });
  switch (scaling.type) {
    case "linear":
      return plain(unscaled(dim, base).map((frequency) => frequency / factor));
    case "ntk":
      return plain(unscaled(dim, stretchedBase(base, factor, dim)));
    case "dynamic": {
      const { originalLength } = scaling;
      const { length = originalLength } = options;
      const growth = (factor * Math.max(length, originalLength)) / originalLength - (factor - 1);
      return plain(unscaled(dim, stretchedBase(base, growth, dim)));
    }
    case "yarn":
      return yarn(dim, base, scaling);
    case "llama3":
      return plain(unscaled(dim, base).map((frequency) => llama3(frequency, scaling)));
  }
}
