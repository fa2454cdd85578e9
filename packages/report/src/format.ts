/** Numbers and durations as text. English conventions, the same on every machine: no locale is consulted. */

export type NumberStyle = "auto" | "integer" | "fixed" | "compact" | "scientific" | "percent" | "duration";

const COMPACT_UNITS = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
] as const;

/**
 * One number in a style. `digits` are the digits after the point (of the mantissa for `scientific`); `auto` takes three
 * significant digits below 1,000 and none after the point above.
 */
export function formatNumber(value: number, style: NumberStyle = "auto", digits?: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  switch (style) {
    case "integer":
      return group(value.toFixed(0));
    case "fixed":
      return group(value.toFixed(digits ?? 3));
    case "compact":
      return formatCompact(value, digits);
    case "scientific":
      return formatScientific(value, digits);
    case "percent":
      return `${(value * 100).toFixed(digits ?? 1)} %`;
    case "duration":
      return formatDuration(value);
    case "auto":
      if (Number.isInteger(value) || Math.abs(value) >= 1000) return group(value.toFixed(digits ?? 0));
      return value.toFixed(digits ?? significantToFraction(value, 3));
  }
}

/** Digits after the point that show `significant` digits of `value`; at most 12. */
export function significantToFraction(value: number, significant: number): number {
  if (value === 0) return 0;
  const exponent = Number(
    Math.abs(value)
      .toExponential(significant - 1)
      .split("e")[1],
  );
  return Math.min(12, Math.max(0, significant - 1 - exponent));
}

/** `12.3 M` style with k, M, B, T; three significant digits unless `digits` after the point are given. */
export function formatCompact(value: number, digits?: number): string {
  const size = Math.abs(value);
  // 999,950 must become 1.00M, not 1000k: the unit is chosen from the rounded number.
  const rounded = Number(size.toPrecision(3));
  for (const [unit, name] of COMPACT_UNITS) {
    if (rounded >= unit) return (value / unit).toFixed(digits ?? significantToFraction(rounded / unit, 3)) + name;
  }
  return Number.isInteger(value) ? String(value) : value.toFixed(digits ?? significantToFraction(value, 3));
}

/** `1.23 × 10¹⁵`. */
export function formatScientific(value: number, digits = 2): string {
  const [mantissa, exponent] = value.toExponential(digits).split("e");
  return Number(exponent) === 0 ? mantissa! : `${mantissa} × 10${superscript(Number(exponent))}`;
}

/** An integer in superscript digits. */
export function superscript(value: number): string {
  return String(value).replace(/./g, (character) => "⁰¹²³⁴⁵⁶⁷⁸⁹"["0123456789".indexOf(character)] ?? "⁻");
}

/** Seconds as `4.2 s`, `3m 05s`, `1h 02m` or `2d 03h`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  const sign = seconds < 0 ? "-" : "";
  const size = Math.abs(seconds);
  if (size < 9.95) return `${sign}${size.toFixed(1)} s`;
  const whole = Math.round(size);
  if (whole < 60) return `${sign}${whole} s`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0");
  if (whole < 3600) return `${sign}${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86_400) return `${sign}${Math.floor(whole / 3600)}h ${two((whole % 3600) / 60)}m`;
  return `${sign}${Math.floor(whole / 86_400)}d ${two((whole % 86_400) / 3600)}h`;
}

/** Commas between groups of three digits of the integer part. */
function group(text: string): string {
  const [integer, fraction] = text.split(".");
  const grouped = integer!.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}
