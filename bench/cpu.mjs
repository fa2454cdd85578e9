/**
 * What the CPU engine promises, each figure as a JSON line beside its ceiling, its peer and the bar that it must reach: `ratio` is the figure over what
 * the bar is about, `ok` whether it reaches it. Ours and the peers take turns, and the best of the rounds counts for each.
 */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { growthSeries, layer } from "./attention.mjs";
import { measure } from "./lib/child.mjs";
import { fitLine } from "./lib/fit.mjs";
import { full, tiny } from "./lib/gpt.mjs";
import { cores, threadCounts } from "./lib/machine.mjs";
import { fmaPeak, openblas, streamRates } from "./lib/native.mjs";
import { installPeers, measurePeers } from "./lib/peers.mjs";
import { promiseLines } from "./lib/promise-lines.mjs";
import { installTorch, torchLines } from "./lib/torch.mjs";
import { transformerSizes } from "./optimizers.mjs";

export const title = "What the CPU engine promises (best of the rounds)";

/** Losses of the first steps of the peers' GPT, to 4 decimals: every library must begin with these. */
const firstLosses = [8.3795, 8.3341, 8.2622, 8.2067];

const { rows, report, leaveOut, begin } = promiseLines();

const over = (value, reference) => (reference === undefined ? undefined : value / reference);

/** PyTorch's results; each the best of all numbers of threads up to ours, since some builds of it are faster on one. */
async function torchBest(threads, task, options, isBetter) {
  let found;
  for (const used of threadCounts.filter((count) => count <= threads)) {
    const lines = await torchLines("peers/torch_cpu.py", { threads: used, task, arguments: options });
    if (lines === undefined) {
      leaveOut("PyTorch", "no Python with it was found; LLMEFF_PYTHON names one");
      return undefined;
    }
    found = lines.map((line, i) => (found === undefined || isBetter(line, found[i]) ? line : found[i]));
  }
  return found;
}

/** Rounds in which everybody measures once; `undefined` from a peer that isn't there. */
async function takeTurns(rounds, measurements) {
  const found = measurements.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, measurement] of measurements.entries()) found[i].push(await measurement());
  return found;
}

/** Row by row the best of the rounds. */
function best(rounds, key) {
  if (rounds[0] === undefined) return undefined;
  return rounds[0].map((_, i) => rounds.map((lines) => lines[i]).reduce((a, b) => (b[key] > a[key] ? b : a)));
}

async function products({ smoke, rounds, sampling }) {
  const shapes = (smoke ? [64] : [512, 1024, 2048]).flatMap((n) =>
    [false, true].flatMap((ta) => [false, true].map((tb) => ({ name: `sgemm ${n}`, m: n, n, k: n, ta, tb }))),
  );
  for (const threads of threadCounts) {
    const { isa } = (await measure("measure/matmul.mjs", { shapes: shapes.slice(0, 1), ...sampling }, { threads }))[0];
    const [ours, blas, torch] = await takeTurns(rounds, [
      () => measure("measure/matmul.mjs", { shapes, ...sampling }, { threads }),
      () => openblas(shapes, threads, isa, sampling),
      () =>
        torchBest(
          threads,
          "sgemm",
          { shapes, samples: sampling.samples, sample_ms: sampling.sampleMs },
          (a, b) => a.gflops > b.gflops,
        ),
    ]);
    if (blas[0] === undefined) leaveOut("OpenBLAS", "it needs a C compiler and OpenBLAS's headers (libopenblas-dev)");
    const ceiling = await fmaPeak(isa, threads);
    const [mine, peer, other] = [ours, blas, torch].map((lines) => best(lines, "gflops"));
    for (const [i, { name, n, ta, tb }] of shapes.entries()) {
      report({
        name,
        shape: `${n}×${n}×${n} ${ta ? "t" : "n"}${tb ? "t" : "n"}`,
        threads,
        value: mine[i].gflops,
        unit: "GFLOP/s",
        ceiling,
        peer: "OpenBLAS",
        peerValue: peer?.[i].gflops,
        ratio: over(mine[i].gflops, peer?.[i].gflops),
        bar: 0.95,
        torchValue: other?.[i].gflops,
      });
    }
  }
}

const moreTokens = (a, b) => a.tokensPerSecond > b.tokensPerSecond;

async function gpt({ smoke, rounds, peers }) {
  const size = smoke ? tiny : full;
  const counts = smoke ? { warmup: 1, steps: 3 } : { warmup: 2, steps: 10 };
  const decoding = smoke ? { prompt: 4, decode: 8, rounds: 1 } : { prompt: 64, decode: 128, rounds: 5 };
  for (const threads of threadCounts) {
    const [ours, training, generation] = await takeTurns(rounds, [
      () => measure("measure/peer-gpt.mjs", { size, ...counts, ...decoding }, { threads }),
      () => torchBest(threads, "training", { size, ...counts }, moreTokens),
      () =>
        torchBest(
          threads,
          "decoding",
          { size, prompt: decoding.prompt, tokens: decoding.decode, rounds: decoding.rounds },
          moreTokens,
        ),
    ]);
    const mine = best(ours, "tokensPerSecond");
    const train = mine.find(({ task }) => task === "train");
    const decode = mine.find(({ task }) => task === "decode");
    if (!smoke && train.losses.some((loss, i) => Math.abs(loss - firstLosses[i]) >= 1e-4))
      throw new Error(`[bench] the first losses are ${train.losses.join(", ")}, expected ${firstLosses.join(", ")}.`);
    const fastest = (lines) => lines?.reduce((a, b) => (b.tokensPerSecond > a.tokensPerSecond ? b : a));
    const [peerTrain, peerDecode] = [training, generation].map((lines) => fastest(best(lines, "tokensPerSecond")));
    if (peerDecode && String(peerDecode.generated) !== String(decode.generated))
      throw new Error(`[bench] decoded ${decode.generated} and, by the peer, ${peerDecode.generated}.`);
    const [{ gflops }] = await measure(
      "measure/matmul.mjs",
      { shapes: [{ name: "", m: 1024, n: 1024, k: 1024 }], samples: 5, sampleMs: 20 },
      { threads },
    );
    const shape = `L${size.layers} d${size.d} T${size.T} B${size.B} V${size.vocab}`;
    const common = { shape, threads, unit: "tokens/s" };
    report({
      name: "GPT training step",
      ...common,
      value: train.tokensPerSecond,
      ceiling: (train.tokensPerSecond * gflops) / train.gflops,
      peer: peerTrain?.library,
      peerValue: peerTrain?.tokensPerSecond,
      ratio: over(train.tokensPerSecond, peerTrain?.tokensPerSecond),
      bar: 1.2,
      losses: train.losses,
    });
    report({
      name: "GPT decoding, batch 1",
      ...common,
      value: decode.tokensPerSecond,
      peer: peerDecode?.library,
      peerValue: peerDecode?.tokensPerSecond,
      ratio: over(decode.tokensPerSecond, peerDecode?.tokensPerSecond),
      bar: 2,
    });
    if (threads !== cores || !peers) continue;
    for (const { library, tokensPerSecond } of await measurePeers("train-step", {
      size,
      warmup: 1,
      steps: 2,
      budgetSeconds: 60,
    }))
      report({
        name: "GPT training step",
        ...common,
        value: train.tokensPerSecond,
        peer: library,
        peerValue: tokensPerSecond,
        ratio: train.tokensPerSecond / tokensPerSecond,
      });
  }
}

async function simplicial({ smoke, rounds, sampling }) {
  const shape = smoke ? { ...layer, T: 48, S: 48, w1: 16, w2: 4 } : layer;
  const data = join(tmpdir(), `llmeff-cpu-${process.pid}.f32`);
  const name = `2-simplicial attention`;
  const common = {
    shape: `N${shape.T} Hq${shape.H} Hkv${shape.K} D${shape.D} ${shape.w1}×${shape.w2}`,
    threads: cores,
  };
  const cases = [{ name: "", kind: "simplicial", softcap: 0, documents: 1, ...shape }];
  const matmulSize = smoke ? 64 : 1024;
  try {
    await measure("measure/simplicial-data.mjs", { shape, path: data });
    const [ours] = await takeTurns(rounds, [
      () => measure("measure/attention.mjs", { cases, matmulSize, ...sampling }, { threads: cores }),
    ]);
    // Minutes for each round, and far from the bar: once is enough.
    const torch = await torchLines("peers/simplicial_torch.py", {
      shape,
      threads: cores,
      samples: 2,
      maxBytes: 8e9,
      data,
    });
    const ceiling = Math.max(...ours.map(([line]) => line.matmulGflops));
    for (const [pass, bar, seconds] of [
      ["forward", 0.75, (line) => line.forward],
      ["backward", 0.6, (line) => line.both - line.forward],
    ]) {
      const [mine] = best(ours, `${pass}Gflops`);
      const value = mine[`${pass}Gflops`];
      report({ name: `${name}, ${pass}`, ...common, value, unit: "GFLOP/s", ceiling, ratio: value / ceiling, bar });
      const peer = torch?.reduce((a, b) => (seconds(b) < seconds(a) ? b : a));
      report({
        name: `${name}, ${pass}, beside PyTorch's fastest expression`,
        ...common,
        value: mine[`${pass}Ms`],
        unit: "ms",
        peer: peer && `PyTorch ${peer.torch}: ${peer.name}`,
        peerValue: peer && 1e3 * seconds(peer),
        ratio: peer && (1e3 * seconds(peer)) / mine[`${pass}Ms`],
        bar: 10,
      });
    }
  } finally {
    rmSync(data, { force: true });
  }
}

/** Cost must be a straight line in the length and in both windows, memory in the length. */
async function growth({ smoke, sampling }) {
  for (const [what, series] of Object.entries(growthSeries(smoke))) {
    const lines = await measure("measure/simplicial-growth.mjs", { cases: series, ...sampling }, { threads: cores });
    const xs = lines.map((line) => (what === "N" ? line.T : line[what]));
    const keys = what === "N" ? ["forwardMs", "bothMs", "peakBytes"] : ["forwardMs", "bothMs"];
    for (const key of keys) {
      const ys = lines.map((line) => line[key]);
      const { residual } = fitLine(xs, ys);
      report({
        name: `2-simplicial attention, growth of ${key} with ${what}`,
        shape: xs.map((x, i) => `${x}: ${Number(ys[i].toPrecision(4))}`).join(", "),
        threads: cores,
        value: 100 * residual,
        unit: "% from a straight line",
        ratio: residual,
        bar: 0.1,
        atMost: true,
      });
    }
  }
}

async function optimizers({ smoke, rounds, sampling }) {
  const sizes = smoke ? [1000, 20_000] : transformerSizes();
  const n = sizes.reduce((sum, size) => sum + size, 0);
  const cases = ["adamw", "sonew-graft"].map((method) => ({ method, coat: "tensors", n, sizes }));
  const [ours, torch, triads] = await takeTurns(rounds, [
    () => measure("measure/optimizers.mjs", { cases, ...sampling }, { threads: cores }),
    () => torchBest(cores, "optimizer", { sizes, samples: 3 }, (a, b) => a.ms < b.ms),
    () => streamRates(cores, 16 * n),
  ]);
  const fastest = (method) => Math.min(...ours.map((lines) => lines.find((line) => line.method === method).ms));
  const rates = triads.filter((rate) => rate !== undefined).map(({ triad }) => triad);
  const ceiling = rates.length === 0 ? undefined : Math.max(...rates);
  const common = { shape: `${n} parameters in ${sizes.length} arrays`, threads: cores };
  for (const [method, name, bytes] of [
    ["adamw", "AdamW step, 28 bytes a parameter", 28],
    ["sonew-graft", "tridiagonal SONew step with Adam graft, 44 bytes a parameter", 44],
  ]) {
    const value = (bytes * n) / fastest(method) / 1e6;
    report({
      name,
      ...common,
      value,
      unit: "GB/s",
      ceiling,
      peer: "STREAM triad",
      peerValue: ceiling,
      ratio: over(value, ceiling),
      bar: 0.8,
    });
  }
  const steps = torch.flat().filter((line) => line !== undefined);
  const peer = steps.length === 0 ? undefined : steps.reduce((a, b) => (b.ms < a.ms ? b : a));
  report({
    name: "AdamW step",
    ...common,
    value: fastest("adamw"),
    unit: "ms",
    peer: peer && `${peer.library} AdamW(${peer.kind}=True)`,
    peerValue: peer?.ms,
    ratio: peer && peer.ms / fastest("adamw"),
    bar: 1,
  });
}

async function smallOps({ smoke, rounds }) {
  const options = smoke ? { count: 200, samples: 2 } : { count: 20_000, samples: 25 };
  const [ours] = await takeTurns(rounds, [() => measure("measure/small-ops.mjs", options, { threads: cores })]);
  const sums = ours.flat().filter(({ name }) => name === "add");
  const value = Math.min(...sums.map(({ microseconds }) => microseconds));
  report({
    name: "sum of two tensors",
    shape: "[16]",
    threads: cores,
    value,
    unit: "µs",
    ratio: value,
    bar: 3,
    atMost: true,
  });
}

export async function run({ smoke, peers }) {
  begin();
  if (!smoke) installTorch();
  if (peers) installPeers();
  else leaveOut("jax-js and TensorFlow.js", "npm run bench -- cpu --with-peers installs and measures them");
  const sampling = smoke ? { samples: 2, sampleMs: 1 } : { samples: 5, sampleMs: 20 };
  const options = { smoke, peers, rounds: smoke ? 1 : 3, sampling };
  for (const part of [products, gpt, simplicial, growth, optimizers, smallOps]) await part(options);
  const judged = rows.filter(({ ok }) => ok !== undefined);
  const count = (ok) => judged.filter((row) => row.ok === ok).length;
  if (smoke) {
    console.log(`${judged.length} bars, which tiny sizes don't reach: everything runs`);
    return rows;
  }
  console.log(`${count(true)} of ${judged.length} bars reached, ${count(null)} without a peer to compare with`);
  for (const { name, shape, threads, ratio, bar } of judged.filter((row) => row.ok === false))
    console.log(`not reached: ${name} ${shape}, ${threads} threads: ${ratio.toPrecision(3)}, bar ${bar}`);
  return rows;
}
