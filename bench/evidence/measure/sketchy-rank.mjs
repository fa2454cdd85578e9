/** A language model trained with AdamW, Shampoo or Sketchy; `timed`: each step is waited for, and the times of the steps are kept. */
import { AdamW, cosine, Shampoo, Sketchy } from "@llmeff/optim";
import { sync } from "@llmeff/tensor";
import { median } from "../../lib/timing.mjs";
import { trainSmallGpt } from "../lib/small-gpt.mjs";
import { serve } from "../lib/trials.mjs";

const classes = { adamw: AdamW, shampoo: Shampoo, sketchy: Sketchy };

function make({ rule, hyper: { learningRate, ...hyper }, steps }, params) {
  const schedule = cosine(learningRate, steps, { warmupSteps: Math.round(steps / 20) });
  return new classes[rule](params, { ...hyper, learningRate: schedule });
}

/** The first steps make up for what is allocated and compiled once. */
const warmup = 10;

async function run({ timed = false, every, ...trial }) {
  const times = [];
  let last = performance.now();
  const result = await trainSmallGpt(
    trial,
    (params) => make(trial, params),
    async () => {
      if (!timed) return;
      await sync();
      times.push(performance.now() - last);
      last = performance.now();
    },
  );
  if (!timed) return result;
  const counted = times.map((ms, i) => ({ ms, due: i % every === 0 })).slice(warmup);
  const ms = (due) => Number(median(counted.filter((step) => step.due === due).map((step) => step.ms)).toFixed(2));
  const seconds = Number((times.reduce((sum, x) => sum + x, 0) / 1000).toFixed(2));
  return { ...result, seconds, dueMs: ms(true), otherMs: ms(false) };
}

serve(run);
