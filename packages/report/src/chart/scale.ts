/** Axes: from data to the unit interval, with ticks at round numbers. */
import { OptionError } from "@llmeff/native/errors";
import { formatScientific, superscript } from "../format.js";
import type { Axis } from "../model.js";

export interface Tick {
  /** 0 at the start of the axis, 1 at its end. */
  readonly position: number;
  readonly label: string;
}

export interface Scale {
  readonly log: boolean;
  readonly domain: readonly [number, number];
  readonly ticks: readonly Tick[];
  /** Place of a value on the unit interval; NaN where the axis has no place for it (0 on a log axis). */
  position(value: number): number;
}

export interface ScaleOptions {
  /** Ticks wanted, about. */
  count: number;
  /** Extend the data's range to round ends. */
  nice: boolean;
}

/**
 * The scale of an axis over the given values.
 *
 * @throws {OptionError} if `min` and `max` don't make an interval, or a log axis is to start at 0 or below
 */
export function makeScale(axis: Axis, values: Iterable<number>, options: ScaleOptions): Scale {
  const log = axis.scale === "log" || axis.scale === "log2";
  const [low, high] = range(axis, values, log);
  if (!(low < high) || (log && low <= 0)) {
    throw new OptionError(
      `[lineChart] the axis "${axis.label}" cannot run from ${low} to ${high}. ` +
        `Give min < max${log ? ", both positive on a log axis" : ""}, or leave them out.`,
    );
  }
  return log ? logScale(axis, low, high, options) : linearScale(axis, low, high, options);
}

/** Below this share of their size a difference of numbers is little more than their rounding: no step between ticks has digits enough. */
const smallestSpread = 1e-10;

/** Extent of the usable values, with room made if they are all the same, and the axis's own limits on top. */
function range(axis: Axis, values: Iterable<number>, log: boolean): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = log ? [1, 10] : [0, 1];
  if (high - low <= smallestSpread * Math.max(Math.abs(low), Math.abs(high))) {
    const room = log ? 0 : Math.abs(low) * 0.1 || 1;
    [low, high] = log ? [low / 2, high * 2] : [low - room, high + room];
  }
  return [axis.min ?? low, axis.max ?? high];
}

function linearScale(axis: Axis, low: number, high: number, { count, nice }: ScaleOptions): Scale {
  const step = roundStep((high - low) / count);
  // The small tolerance keeps 0.3 / 0.1 = 2.9999… from losing its tick.
  const first = (value: number) => Math.ceil(value / step - 1e-9);
  const last = (value: number) => Math.floor(value / step + 1e-9);
  const from = nice && axis.min === undefined ? last(low) * step : low;
  const to = nice && axis.max === undefined ? first(high) * step : high;
  const position = (value: number) => (value - from) / (to - from);
  const values = Array.from({ length: Math.max(0, last(to) - first(from) + 1) }, (_, i) => (first(from) + i) * step);
  const label = tickLabels(values, step, axis.style === "percent");
  return {
    log: false,
    domain: [from, to],
    ticks: values.map((value) => ({ position: position(value), label: label(value) })),
    position,
  };
}

function logScale(axis: Axis, low: number, high: number, { count, nice }: ScaleOptions): Scale {
  const room = nice ? (high / low) ** 0.04 : 1;
  const from = axis.min ?? low / room;
  const to = axis.max ?? high * room;
  const span = Math.log(to / from);
  const position = (value: number) => (value > 0 ? Math.log(value / from) / span : Number.NaN);
  const { values, label } =
    axis.scale === "log2" ? powersOfTwo(from, to, count) : logTicks(from, to, count, axis.style === "percent");
  return {
    log: true,
    domain: [from, to],
    ticks: values.map((value) => ({ position: position(value), label: label(value) })),
    position,
  };
}

/** Every power of two, or every second, third, … where they are too many. Less than one doubling has ticks like any log axis. */
function powersOfTwo(from: number, to: number, count: number) {
  const lowest = Math.ceil(Math.log2(from) - 1e-9);
  const steps = Math.floor(Math.log2(to) + 1e-9) - lowest;
  if (steps < 1) return logTicks(from, to, count, false);
  const every = Math.ceil((steps + 1) / count);
  const values = Array.from({ length: Math.floor(steps / every) + 1 }, (_, i) => 2 ** (lowest + i * every));
  return { values, label: binaryLabel };
}

function binaryLabel(value: number): string {
  const [unit, name] =
    value >= 2 ** 30 ? [2 ** 30, "G"] : value >= 2 ** 20 ? [2 ** 20, "M"] : value >= 1024 ? [1024, "k"] : [1, ""];
  return `${Number((value / unit).toPrecision(6))}${name}`;
}

/** Powers of ten; with 2 and 5 between them, or round linear steps, where the powers alone are too few. */
function logTicks(from: number, to: number, count: number, percent: boolean) {
  const lowest = Math.ceil(Math.log10(from) - 1e-9);
  const highest = Math.floor(Math.log10(to) + 1e-9);
  const decades = highest - lowest + 1;
  const inside = (value: number) => value >= from * (1 - 1e-9) && value <= to * (1 + 1e-9);
  if (decades > count) {
    const every = Math.ceil(decades / count);
    const exponents = Array.from({ length: Math.ceil(decades / every) }, (_, i) => lowest + i * every);
    return { values: exponents.map((e) => 10 ** e), label: powerLabel };
  }
  const multiples = decades >= 3 ? [1] : [1, 2, 5];
  const values: number[] = [];
  for (let e = lowest - 1; e <= highest; e++) for (const m of multiples) values.push(Number(`${m}e${e}`));
  const kept = values.filter(inside);
  if (kept.length >= 3)
    return { values: kept, label: decades >= 3 ? powerLabel : (v: number) => plainLabel(v, percent) };
  const step = roundStep((to - from) / count);
  const first = Math.ceil(from / step - 1e-9);
  const linear = Array.from(
    { length: Math.max(0, Math.floor(to / step + 1e-9) - first + 1) },
    (_, i) => (first + i) * step,
  );
  return { values: linear, label: tickLabels(linear, step, percent) };
}

/** The 1, 2 or 5 times a power of ten nearest by ratio. */
function roundStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const ratio = rough / power;
  return power * (ratio < Math.sqrt(2) ? 1 : ratio < Math.sqrt(10) ? 2 : ratio < Math.sqrt(50) ? 5 : 10);
}

/** Labels with one unit and one number of digits for the whole axis. */
function tickLabels(values: readonly number[], step: number, percent: boolean): (value: number) => string {
  if (percent) return (value) => plainLabel(value, true, fractionDigits(step * 100));
  const largest = Math.max(0, ...values.map(Math.abs));
  if (largest > 0 && (largest >= 1e15 || largest < 1e-4)) return (v) => (v === 0 ? "0" : formatScientific(v, 1));
  const [unit, name] =
    largest >= 1e12
      ? [1e12, "T"]
      : largest >= 1e9
        ? [1e9, "B"]
        : largest >= 1e6
          ? [1e6, "M"]
          : largest >= 1e4
            ? [1e3, "k"]
            : [1, ""];
  const digits = fractionDigits(step / unit);
  return (value) => (Math.abs(value) < step / 2 ? "0" : `${minus((value / unit).toFixed(digits))}${name}`);
}

function fractionDigits(step: number): number {
  return Math.min(12, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

function plainLabel(value: number, percent: boolean, digits?: number): string {
  if (!percent)
    return value >= 1e4 ? tickLabels([value], value, false)(value) : minus(String(Number(value.toPrecision(6))));
  const hundred = value * 100;
  return `${minus(digits === undefined ? String(Number(hundred.toPrecision(6))) : hundred.toFixed(digits))} %`;
}

function powerLabel(value: number): string {
  const exponent = Math.round(Math.log10(value));
  return exponent >= -2 && exponent <= 3 ? String(Number(value.toPrecision(1))) : `10${superscript(exponent)}`;
}

function minus(text: string): string {
  return text.replace("-", "−");
}
