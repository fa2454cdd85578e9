/** Matrix products of the engine through `matmul`: each shape is checked against float64 dot products, then timed. */
import { engine } from "@llmeff/native";
import { matmul, randomNormal, scope, sync, transpose } from "@llmeff/tensor";
import { childOptions, emit, expect } from "../lib/child.mjs";
import { time } from "../lib/timing.mjs";

const { shapes, samples, sampleMs } = childOptions();
const { isa, numThreads: threads, availableIsas } = engine().info();

/** Some entries of the product in float64; errors of rounding grow with the root of the length. */
function check({ m, n, k, ta, tb }, a, b, c) {
  const [x, y, z] = [a.dataSync(), b.dataSync(), c.dataSync()];
  const largest = (data) => data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const tolerance = 4 * 2 ** -23 * Math.sqrt(k) * largest(x) * largest(y);
  for (let trial = 0; trial < 64; trial++) {
    const i = (trial * 7919 + m - 1) % m;
    const j = (trial * 104729 + n - 1) % n;
    let sum = 0;
    for (let p = 0; p < k; p++) sum += x[ta ? p * m + i : i * k + p] * y[tb ? j * k + p : p * n + j];
    const got = z[i * n + j];
    expect(Math.abs(got - sum) <= tolerance, `matmul ${m}×${n}×${k} at [${i}, ${j}]: ${got}, expected ${sum}`);
  }
}

for (const shape of shapes) {
  const { name, m, n, k, ta = false, tb = false } = shape;
  const a = randomNormal({ seed: 1 }, ta ? [k, m] : [m, k]);
  const b = randomNormal({ seed: 2 }, tb ? [n, k] : [k, n]);
  const product = () => matmul(ta ? transpose(a) : a, tb ? transpose(b) : b);
  scope(() => check({ m, n, k, ta, tb }, a, b, product()));
  const work = async (count) => {
    for (let i = 0; i < count; i++) scope(() => void product());
    await sync();
  };
  const { best, median } = await time(work, { samples, sampleMs });
  const gflops = (seconds) => (2 * m * n * k) / seconds / 1e9;
  emit({
    name,
    m,
    n,
    k,
    ta,
    tb,
    isa,
    availableIsas,
    threads,
    gflops: gflops(best),
    medianGflops: gflops(median),
    samples,
  });
  a.dispose();
  b.dispose();
}
