/** What a device can do at most, to measure a run by. */
import { devices, type Tensor } from "@llmeff/tensor";

/**
 * Dense bfloat16 or float16 products with float32 sums, operations a second, by their makers' data sheets. Names are matched so far that no other device has them: an
 * L40 is no L4, an H100 NVL has fewer than the H100 that is called by its memory, and a MIG slice has a part only.
 */
const bfloat16Peaks: readonly (readonly [name: RegExp, flops: number])[] = [
  [/^NVIDIA H100 PCIe$/, 756e12],
  [/^NVIDIA H100 80GB HBM3$/, 989.4e12],
  [/^NVIDIA H200$/, 989.4e12],
  [/^NVIDIA A100[- ](?!.*MIG)/, 312e12],
  [/^NVIDIA L40S$/, 362e12],
  [/^NVIDIA L4$/, 121e12],
];

/** Of a device by its name; undefined where nobody has said. */
export function bfloat16PeakOf(name: string): number | undefined {
  return bfloat16Peaks.find(([known]) => known.test(name))?.[1];
}

/** Operations a second of the device that a parameter is on, for products of its dtype; undefined where nobody has said. */
export function peakFlopsOf({ device, dtype }: Pick<Tensor, "device" | "dtype">): number | undefined {
  if (dtype !== "bfloat16" && dtype !== "float16") return undefined;
  const name = devices().find((one) => one.device === device)?.name;
  return name === undefined ? undefined : bfloat16PeakOf(name);
}
