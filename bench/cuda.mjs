/**
 * What the CUDA engine promises, each figure as a JSON line beside its ceiling, its peer of the same run and the bar that it must reach. Device times
 * by events, medians. Rates of memory are held against the copy of the same run: the bars were set for a GPU that copies 3.0 TB/s.
 */
import { measure } from "./lib/child.mjs";
import { promiseLines } from "./lib/promise-lines.mjs";
import { simplicialShapes } from "./lib/simplicial.mjs";
import { installTorch, torchLines } from "./lib/torch.mjs";

export const title = "What the CUDA engine promises (medians, device time)";

const { rows, report, leaveOut, begin } = promiseLines();
const copyOfBars = 3.0;

const ours = (task, smoke) => measure("measure/cuda.mjs", { task, smoke }, { device: "cuda" });

async function torch(tasks, smoke) {
  const lines = await torchLines("peers/torch_gpu.py", { tasks, smoke });
  if (lines === undefined) leaveOut("PyTorch", "no Python with it was found; LLMEFF_PYTHON names one");
  return lines ?? [];
}

const over = (value, reference) => (reference === undefined ? null : value / reference);

async function ceilings(smoke) {
  const [product, copy] = await ours("ceilings", smoke);
  const [, peerProduct, peerCopy] = await torch(["ceilings"], smoke);
  const line = { name: product.name, shape: `${product.n}³`, value: product.tflops, unit: "TFLOP/s", peer: "PyTorch" };
  report({ ...line, peerValue: peerProduct?.value, ratio: over(product.tflops, peerProduct?.value) });
  const moved = {
    name: copy.name,
    shape: `${copy.size} float32`,
    value: copy.terabytes,
    unit: "TB/s",
    peer: "PyTorch",
  };
  report({ ...moved, peerValue: peerCopy?.value, ratio: over(copy.terabytes, peerCopy?.value) });
  return { product: product.tflops, copy: copy.terabytes };
}

async function attention(smoke, { product }) {
  const lines = await ours("attention", smoke);
  const peers = await torch(["attention"], smoke);
  for (const line of lines) {
    const same = peers.filter(({ name, shape }) => name === "attention" && shape === line.shape);
    for (const direction of ["forward", "backward"]) {
      const best = same.reduce((a, b) => (a === undefined || b[direction] > a[direction] ? b : a), undefined);
      const value = line[direction];
      report({
        name: `dot-product attention, ${direction}`,
        shape: line.shape,
        value,
        unit: "TFLOP/s",
        ceiling: product,
        peer: best && `PyTorch ${best.peer}`,
        peerValue: best?.[direction],
        ratio: over(value, best?.[direction]),
        bar: line.shape.startsWith("B 1, T 16384") ? 0.95 : undefined,
      });
    }
  }
}

/** By shape, what our draft in Triton does: TFLOP/s, or why there is no figure. */
async function simplicialPeer(smoke) {
  const shapes = simplicialShapes(smoke).map(({ N, Hq, Hkv, w1, w2 }) => [N, Hq, Hkv, w1, w2]);
  const lines = await torchLines("peers/simplicial_triton.py", { shapes, repeats: smoke ? 2 : 5 });
  const missing = lines === undefined ? "there is no PyTorch" : lines.find((line) => line.missing)?.missing;
  if (missing !== undefined) leaveOut("the draft in Triton", missing);
  return (i) => {
    const found = missing === undefined ? lines.filter(({ shape }) => shape !== undefined)[i] : { error: missing };
    if (found.error !== undefined) return { peer: `Triton draft, not measured: ${found.error}` };
    return { peer: "Triton draft", peerValue: found.forward };
  };
}

async function simplicial(smoke, { product }) {
  const lines = await ours("simplicial", smoke);
  const peerOf = await simplicialPeer(smoke);
  for (const [i, { shape, forward, backward }] of lines.entries()) {
    const bar = shape.includes("Hkv 8") ? 350 : shape.includes("Hq 64") && shape.includes("512×32") ? 600 : 560;
    const line = { shape, unit: "TFLOP/s", ceiling: product };
    const peer = peerOf(i);
    const ofPeer = over(forward, peer.peerValue);
    report({ ...line, ...peer, name: "2-simplicial attention, forward", value: forward, ratio: forward, bar, ofPeer });
    if (backward !== null)
      report({ ...line, name: "2-simplicial attention, backward", value: backward, ratio: backward, bar: 270 });
  }
}

async function optimizers(smoke, { copy }) {
  const [adamw, sonew, ...others] = await ours("optimizers", smoke);
  const [, fused] = await torch(["adamw"], smoke);
  const line = ({ name, parameters, terabytes, ms }) => ({
    name,
    shape: `${parameters} float32`,
    value: terabytes,
    unit: "TB/s",
    ceiling: copy,
    ms,
    ratio: terabytes / copy,
  });
  const peer = { peer: "PyTorch AdamW(fused=True)", peerValue: fused?.value };
  report({ ...line(adamw), ...peer, bar: 2.65 / copyOfBars });
  report({ ...line(sonew), bar: 2.5 / copyOfBars });
  for (const other of others)
    report({ ...line(other), bytesPerParameter: other.bytes, psPerParameter: other.psPerParameter });
}

async function languageModel(smoke) {
  const lines = await ours("lm", smoke);
  const peers = (await torch(["lm"], smoke)).filter(({ name }) => name === "lm");
  for (const line of lines) {
    // PyTorch has the first two models.
    const same = line.peers ? peers.filter(({ vocabulary }) => line.shape.includes(`vocabulary ${vocabulary},`)) : [];
    const compiled = same.find(({ peer }) => peer === "torch.compile");
    report({
      name: `language-model step, ${line.name}`,
      shape: line.shape,
      value: line.tokens,
      unit: "tokens/s",
      peer: compiled?.peer,
      peerValue: compiled?.value,
      ratio: over(line.tokens, compiled?.value),
      bar: compiled && 1,
      eager: same.find(({ peer }) => peer === "PyTorch eager")?.value,
      peakGiB: line.peakGiB,
      peerPeakGiB: compiled?.peakGiB,
      ms: line.ms,
      wallMs: line.wall,
      capturedMs: line.captured.ms,
      capturedWallMs: line.captured.wall,
      firstLoss: line.first,
      lastLoss: line.last,
      shares: line.shares,
    });
  }
}

export async function run({ smoke }) {
  begin();
  installTorch();
  const ceiling = await ceilings(smoke);
  await attention(smoke, ceiling);
  await simplicial(smoke, ceiling);
  await optimizers(smoke, ceiling);
  await languageModel(smoke);
  return rows;
}
