/**
 * How free the event loop stays while a model trains: the delay of its timers over 300 steps, and whether native memory stays the same.
 *
 * `node bench/event-loop.mjs [STEPS]` after `pnpm build`; prints one JSON line. The model and batch are of the size of the
 * character study on tiny-shakespeare: four layers, one of them 2-simplicial, 128 channels, 16 sequences of 256.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { characterTokenizer, prefetch, readText, TokenDataset } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { Sonew } from "@llmeff/optim";
import { memory } from "@llmeff/tensor";
import { train } from "@llmeff/train";

const steps = Number(process.argv[2] ?? 300);
const text = await readText(join(import.meta.dirname, "..", "datasets", "tiny-shakespeare.txt.gz"));
const tokenizer = characterTokenizer(text);
const tokens = tokenizer.encode(text);
const model = new Transformer({
  vocabSize: tokenizer.vocabSize,
  dModel: 128,
  numLayers: 4,
  numHeads: 4,
  maxSeqLen: 256,
  attention: [{ kind: "dot" }, { kind: "dot" }, { kind: "dot" }, { kind: "simplicial", w1: 64, w2: 16 }],
});
const params = model.init(1);
const directory = mkdtempSync(join(tmpdir(), "llmeff-event-loop-"));
const run = train({
  params,
  objective: (p, batch) => model.loss(p, batch),
  optimizer: new Sonew(params, { learningRate: 1e-3, maxGradNorm: 1 }),
  data: prefetch(new TokenDataset(tokens, { seqLen: 256, batchSize: 16, seed: 1 })),
  steps,
  checkpoint: { directory, every: 50 },
});

const delay = monitorEventLoopDelay({ resolution: 1 });
const liveBytes = new Set();
let last;
for await (const event of run) {
  if (event.type !== "step") continue;
  // The first steps compile the JavaScript and fill the allocator's cache.
  if (event.step === 3) delay.enable();
  if (event.step >= 3) liveBytes.add(memory().liveBytes);
  last = event;
}
delay.disable();
rmSync(directory, { recursive: true });

const milliseconds = (nanoseconds) => Number((nanoseconds / 1e6).toFixed(2));
console.log(
  JSON.stringify({
    bench: "event-loop",
    machine: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version },
    steps,
    parameters: model.parameterCount,
    secondsPerStep: last.seconds / steps,
    loss: last.loss,
    delayMs: {
      p50: milliseconds(delay.percentile(50)),
      p99: milliseconds(delay.percentile(99)),
      max: milliseconds(delay.max),
    },
    liveBytesConstant: liveBytes.size === 1,
  }),
);
