/**
 * `node probe-program.mjs devices|compute`: what a process finds. A line of JSON: the GPUs, or why there is none and what asking for one throws; or
 * products and the losses of a short training on the default device.
 */
import { devices, matmul, missingGpu, randomNormal, resolveDevice, type Tensor, zeros } from "@llmeff/tensor";
import { Run, small } from "./step.js";

async function refusal(call: () => Tensor): Promise<{ code?: string; message: string } | undefined> {
  try {
    await call().data();
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    return { ...(code === undefined ? {} : { code }), message };
  }
  return undefined;
}

async function product(dtype: "float32" | "float64" | "bfloat16"): Promise<number[]> {
  const [a, b] = [randomNormal({ seed: 1 }, [65, 129], { dtype }), randomNormal({ seed: 2 }, [129, 33], { dtype })];
  return [...((await matmul(a, b).astype("float64").data()) as Float64Array)];
}

async function losses(): Promise<number[]> {
  const run = new Run(small);
  const all: number[] = [];
  for (let step = 0; step < 21; step++) all.push(await run.step());
  return all;
}

const found =
  process.argv[2] === "devices"
    ? {
        missing: missingGpu(),
        devices: devices().map(({ device }) => device),
        auto: resolveDevice("auto"),
        refused: await refusal(() => zeros([1], { device: "cuda" })),
      }
    : {
        float32: await product("float32"),
        float64: await product("float64"),
        bfloat16: await product("bfloat16"),
        losses: await losses(),
        // More rows than the plain kernel takes.
        tall: await refusal(() => matmul(zeros([2 ** 23, 1]), zeros([1, 1])).slice(0, 0, 1)),
      };
console.log(JSON.stringify(found));
