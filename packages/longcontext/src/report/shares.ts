/** Scores in words, as per cent. */
import type { MeanInterval } from "../stats/intervals.js";

/** `73.2 % [60.1, 84.0]`; null without a mean. */
export function shareWithInterval({ mean, low, high }: MeanInterval): string | null {
  if (mean === null) return null;
  return low === null || high === null ? percent(mean) : `${percent(mean)} [${number(low)}, ${number(high)}]`;
}

export function percent(share: number): string {
  return `${number(share)} %`;
}

function number(share: number): string {
  return (100 * share).toFixed(1).replace("-", "−");
}
