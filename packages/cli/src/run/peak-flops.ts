/** What a device can do at most, to measure a run by. */
import { devices, type Tensor } from "@llmeff/tensor";

/** Dense bfloat16 products with float32 sums, operations a second, by their makers' data sheets; the first name that the device's begins with counts. */
const bfloat16Peaks: readonly (readonly [name: string, flops: number])[] = [
  ["NVIDIA H100 PCIe", 756e12],
  ["NVIDIA H100", 989.4e12],
  ["NVIDIA H200", 989.4e12],
  ["NVIDIA A100", 312e12],
  ["NVIDIA L40S", 362e12],
  ["NVIDIA L4", 121e12],
];

/** Operations a second of the device that a parameter is on, for products of its dtype; undefined where nobody has said. */
export function peakFlopsOf({ device, dtype }: Pick<Tensor, "device" | "dtype">): number | undefined {
  if (dtype !== "bfloat16") return undefined;
  const name = devices().find((one) => one.device === device)?.name;
  return name === undefined ? undefined : bfloat16Peaks.find(([known]) => name.startsWith(known))?.[1];
}
