/**
 * A Transformer of bytes on seven novels, judged by its loss on an eighth. In bfloat16, with float32 masters in the optimizers; the norm of the gradients is
 * clipped at 1, and the rate of every rule falls in half a cosine after a tenth of the steps.
 */
import { fileURLToPath } from "node:url";
import { byteTokenizer, encodeCorpus, sequentialWindows, streamJsonl, TokenDataset } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { cosine } from "@llmeff/optim";
import { captureForward, captureTraining } from "../lib/captured.mjs";
import { rules } from "../lib/language-model-rules.mjs";
import { mean } from "../lib/statistics.mjs";
import { serve } from "../lib/trials.mjs";

const [batchSize, seqLen] = [32, 256];
/** Windows of the held-out novel whose loss is taken. */
const maxWindows = 512;
const config = { dModel: 256, numLayers: 4, numHeads: 4, ffnDim: 688, maxSeqLen: seqLen };

const novels = fileURLToPath(new URL("../../../datasets/novels.jsonl.gz", import.meta.url));
const tokenizer = byteTokenizer();
const [text, heldOut] = await Promise.all(
  ["train", "valid"].map((split) => encodeCorpus(tokenizer, streamJsonl(novels, { split }))),
);
const judged = [...sequentialWindows(heldOut, { seqLen, batchSize, maxWindows })];

const pick = ({ tokens, targets }) => ({ tokens, targets });

async function heldOutLoss(forward) {
  const losses = judged.map((batch) => forward(pick(batch)));
  const values = await Promise.all(losses.map((loss) => loss.item()));
  for (const loss of losses) loss.dispose();
  return mean(values);
}

async function train({ rule, hyper, dtype, seed, steps, evaluateEvery }) {
  const model = new Transformer({ vocabSize: tokenizer.vocabSize, ...config });
  const params = model.init(seed, { dtype });
  const schedule = (peak) => cosine(peak, steps, { warmupSteps: Math.round(steps / 10) });
  const optimizer = rules[rule].make(params, hyper, schedule);
  const form = { shape: [batchSize, seqLen], dtype: "int32" };
  const inputs = { tokens: form, targets: form };
  const loss = (p, batch) => model.loss(p, batch);
  const step = captureTraining(loss, params, optimizer, inputs);
  const forward = captureForward(loss, params, inputs);
  const windows = new TokenDataset(text, { seqLen, batchSize, seed });
  const curve = [];
  let seconds = 0;
  let diverged = false;
  let start = performance.now();
  for (let i = 1; i <= steps && !diverged; i++) {
    const last = step(pick(windows.next()));
    if (i % evaluateEvery === 0 || i === steps) {
      diverged = !Number.isFinite(await last.item());
      // Evaluations don't count.
      seconds += (performance.now() - start) / 1000;
      if (!diverged) curve.push([i, Number(seconds.toFixed(3)), Number((await heldOutLoss(forward)).toFixed(4))]);
      start = performance.now();
    }
    last.dispose();
  }
  const stateBytes = optimizer.stateBytes();
  const { captured } = step;
  for (const used of [step, forward, optimizer, model, ...Object.values(params)]) used.dispose();
  // JSON has no infinity: null is the loss of a run that diverged.
  const final = diverged || !Number.isFinite(curve.at(-1)[2]) ? null : curve.at(-1)[2];
  return { loss: final, curve, seconds: Number(seconds.toFixed(2)), stateBytes, captured };
}

serve(train);
