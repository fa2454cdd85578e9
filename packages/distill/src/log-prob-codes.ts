/** Log-probabilities in 16 bits: evenly spaced from 0 down to `lo` (distillation.md §4.1). With `lo = −24` the error is at most 1.8e-4 nats. */

const STEPS = 65_535;

/** `round(clamp(lp, lo, 0) / lo · 65535)`, halves upwards. */
export function encodeLogProb(logProb: number, lo: number): number {
  return Math.floor((Math.min(0, Math.max(lo, logProb)) / lo) * STEPS + 0.5);
}

/** `code / 65535 · lo` */
export function decodeLogProb(code: number, lo: number): number {
  return code === 0 ? 0 : (code / STEPS) * lo; // not −0
}
