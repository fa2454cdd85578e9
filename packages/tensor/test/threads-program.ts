/**
 * A forward and backward pass through all large operations in a worker thread or process of its own; prints or posts a hash of every output.
 * With `busy` it never ends: work and reads are pending whenever it is terminated.
 */
import { createHash } from "node:crypto";
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { engine } from "@llmeff/native";
import * as t from "../src/index.js";
import { sample, sampleIds } from "./numbers.js";

async function pass(): Promise<string> {
  const [B, T, C, V] = [4, 300, 48, 1031]; // more rows, columns and sums than one task of any kernel takes
  const of = (shape: number[], seed: number) => sample(shape, seed, { dtype: "float32", low: -0.5, high: 0.5 });
  const params = {
    table: of([V, C], 1),
    wqkv: of([5 * C, C], 2),
    gate: of([3 * C, C], 3),
    up: of([3 * C, C], 4),
    down: of([C, 3 * C], 5),
    norm: of([C], 6),
  };
  const [tokens, targets] = [sampleIds([B, T], 7, V), sampleIds([B, T], 8, V)];
  const { cos, sin } = t.ropeTables(T, 12);
  const { value, grads } = t.valueAndGrad((p: typeof params) => {
    const x = t.embedding(p.table, tokens);
    const y = t.linear(t.rmsNorm(x, p.norm), p.wqkv).reshape([B, T, 20, 12]);
    const [q, k1, k2, v1, v2] = [0, 4, 8, 12, 16].map((h) => y.slice(2, h, h + 4)) as [
      t.Tensor,
      t.Tensor,
      t.Tensor,
      t.Tensor,
      t.Tensor,
    ];
    const dot = t.attention(t.rope(q, cos, sin), t.rope(k1, cos, sin), v1, { window: 50, softcap: 20 });
    const two = t.simplicialAttention(q, k1, k2, v1, v2, { w1: 40, w2: 9 });
    const z = x.add(dot.add(two).reshape([B, T, C]));
    const hidden = z.add(t.linear(t.swiglu(t.linear(z, p.gate), t.linear(z, p.up)), p.down));
    return t.linearCrossEntropy(hidden, p.table, targets, { zLoss: 1e-3 }).add(t.softmax(z).square().mean());
  }, params);
  const hash = createHash("sha256");
  const big = t.randomNormal({ seed: 3 }, [1000, 700]);
  const rest = [
    t.globalNorm([...Object.values(grads), big]),
    big,
    big.sum(),
    big.sum({ axis: 0 }),
    big.sum({ axis: 1 }),
    big.T.matmul(big),
    big.exp().mean(),
  ];
  for (const x of [value, ...Object.values(grads), ...rest]) {
    hash.update(new Uint8Array((await x.data()).buffer));
  }
  return hash.digest("hex");
}

const busy = (isMainThread ? process.argv[2] : workerData) === "busy";
if (busy) {
  for (let i = 0; ; i++) {
    const x = t.randomNormal({ seed: i }, [300, 300]);
    const bad = t.embedding(x, t.tensor(Int32Array.of(1000))); // whose read is rejected, by an error that needs JavaScript to be made
    const reads = [x.matmul(x).data(), x.sum().data(), x.exp().data(), bad.data().catch(() => new Float32Array())];
    if (i === 2) parentPort?.postMessage("running");
    if (i % 3 === 0) await Promise.all(reads);
    else Promise.all(reads).catch(() => undefined);
    x.dispose();
    bad.dispose();
  }
} else {
  const { isa, numThreads } = engine().info();
  const result = { hash: await pass(), isa, numThreads };
  if (isMainThread) console.log(JSON.stringify(result));
  else parentPort!.postMessage(result);
}
