import { expect, it } from "vitest";
import { bfloat16PeakOf } from "./peak-flops.js";

it.each([
  ["NVIDIA A100-SXM4-80GB", 312e12],
  ["NVIDIA A100 80GB PCIe", 312e12],
  ["NVIDIA H100 PCIe", 756e12],
  ["NVIDIA H100 80GB HBM3", 989.4e12],
  ["NVIDIA H200", 989.4e12],
  ["NVIDIA L4", 121e12],
  ["NVIDIA L40S", 362e12],
])("knows the %s", (name, flops) => {
  expect(bfloat16PeakOf(name)).toBe(flops);
});

it.each([
  "NVIDIA L40",
  "NVIDIA H100 NVL",
  "NVIDIA H200 NVL",
  "NVIDIA H20",
  "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
  "NVIDIA H200 MIG 1g.18gb",
])("takes the %s for no other device", (name) => {
  expect(bfloat16PeakOf(name)).toBeUndefined();
});
