/** One training run of the study of 2-simplicial attention. */
import { Transformer } from "@llmeff/models";
import { AdamW, constant, cosine, warmup } from "@llmeff/optim";
import { argMax, astype, devices, equal, sum } from "@llmeff/tensor";
import { captureForward, captureTraining } from "./captured.mjs";
import { mean } from "./statistics.mjs";
import { dataOf } from "./two-simplicial-data.mjs";

const inputsOf = ({ tokens, targets }) => ({ tokens, targets });
const rounded = (value, digits) => Number(value.toFixed(digits));

/** A run that may stop at a target keeps its rate, so that what it needs doesn't depend on how long it might have gone on. */
function scheduleOf(rate, { steps, warmupSteps, stopAt }) {
  if (stopAt !== undefined) return warmup(constant(rate), warmupSteps);
  return cosine(rate, steps, { warmupSteps, minRatio: 0.01 });
}

/** Right answers of a batch, as one number; ignored positions are never right. */
function rightAnswers(model) {
  return (params, { tokens, targets }) =>
    sum(astype(equal(astype(argMax(model.logits(params, tokens), { axis: -1 }), "int32"), targets), "float32"));
}

/** Accuracy or loss over the held-out batches, which all have one shape. */
function evaluation(metric, model, params, batches, targetCount) {
  const [{ batchSize, seqLen }] = batches;
  const form = { shape: [batchSize, seqLen], dtype: "int32" };
  const measure = metric === "accuracy" ? rightAnswers(model) : (p, batch) => model.loss(p, batch);
  const forward = captureForward(measure, params, { tokens: form, targets: form });
  const value = async () => {
    const results = batches.map((batch) => forward(inputsOf(batch)));
    const values = await Promise.all(results.map((result) => result.item()));
    for (const result of results) result.dispose();
    return metric === "accuracy" ? values.reduce((a, b) => a + b, 0) / targetCount : mean(values);
  };
  return { value, dispose: () => forward.dispose() };
}

/**
 * Trains and judges. Returns `{ curve, value, loss, steps, tokens, tokensToTarget, parameters, seconds, captured, deviceName }`: the curve has
 * `[step, held-out accuracy or loss]`, `value` its last, null if the run diverged; `seconds` are those of training alone.
 */
export async function trainTrial({ model: config, data, metric, rate, training, dtype, seed }) {
  const { train, heldOut } = await dataOf(data, seed);
  const model = new Transformer(config);
  const params = model.init(seed, { dtype });
  const optimizer = new AdamW(params, {
    ...{ learningRate: scheduleOf(rate, training), beta2: 0.95, weightDecay: 0.0125, maxGradNorm: 1 },
  });
  const form = { shape: [train.batchSize, train.seqLen], dtype: "int32" };
  const step = captureTraining((p, batch) => model.loss(p, batch), params, optimizer, { tokens: form, targets: form });
  const judge = evaluation(metric, model, params, [...heldOut], heldOut.targetCount);
  const { steps, evaluateEvery, stopAt } = training;
  const curve = [];
  let [seconds, start, done, loss] = [0, performance.now(), 0, Number.NaN];
  const value = () => curve.at(-1)?.[1] ?? Number.NaN;
  const reached = () => stopAt !== undefined && value() >= stopAt;
  while (done < steps && !reached()) {
    const last = step(inputsOf(train.next()));
    done++;
    if (done % evaluateEvery === 0 || done === steps) {
      loss = await last.item();
      seconds += (performance.now() - start) / 1000;
      if (!Number.isFinite(loss)) break;
      curve.push([done, rounded(await judge.value(), 5)]);
      start = performance.now();
    }
    last.dispose();
  }
  const { captured } = step;
  const deviceName = devices().find(({ device }) => device === Object.values(params)[0].device)?.name;
  const ended = Number.isFinite(loss) && Number.isFinite(value());
  for (const used of [step, judge, optimizer, model, ...Object.values(params)]) used.dispose();
  const tokens = done * train.batchSize * train.seqLen;
  return {
    ...{ curve, value: ended ? value() : null, loss: ended ? rounded(loss, 5) : null, steps: done, tokens },
    ...(stopAt !== undefined && { tokensToTarget: reached() ? tokens : null }),
    ...{ parameters: model.parameterCount, seconds: rounded(seconds, 3), captured, deviceName },
  };
}
