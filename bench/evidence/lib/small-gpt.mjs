/**
 * The language model of the studies that need one: a Transformer of characters on Shakespeare's plays, 90 % for training, the rest for
 * validation.
 */
import { fileURLToPath } from "node:url";
import { characterTokenizer, readText, sequentialWindows, splitTokens, TokenDataset } from "@llmeff/data";
import { Transformer } from "@llmeff/models";
import { captureStep, scope, tensor, valueAndGrad } from "@llmeff/tensor";

const text = await readText(fileURLToPath(new URL("../../../datasets/tiny-shakespeare.txt.gz", import.meta.url)));
const tokenizer = characterTokenizer(text);
const { train, valid } = splitTokens(tokenizer.encode(text), 0.1);

/** Steps whose losses are averaged to one point of the curve. */
const averaged = 20;

/** A whole file's loss at one time would need all of its logits. */
const validationBatch = 32;

const tensorsOfBatch = ({ tokens, targets, batchSize, seqLen }) => {
  const shape = { shape: [batchSize, seqLen] };
  return { tokens: tensor(tokens, shape), targets: tensor(targets, shape) };
};

async function validationLoss(model, params, seqLen) {
  const windows = sequentialWindows(valid, { seqLen, batchSize: validationBatch });
  const total = scope(() => {
    let sum;
    for (const batch of windows) {
      const count = batch.targets.reduce((n, id) => n + Number(id >= 0), 0);
      const loss = model.loss(params, tensorsOfBatch(batch)).mul(count);
      sum = sum === undefined ? loss : sum.add(loss);
    }
    return sum;
  });
  const loss = (await total.item()) / windows.targetCount;
  total.dispose();
  return loss;
}

/**
 * Trains `config` for `steps` steps and gives the loss over the validation text, the mean training losses of every 20 steps, the
 * seconds of the steps, and what the optimizer kept. `afterStep(step, grads)` sees the gradients; what it returns is waited for.
 */
export async function trainSmallGpt({ config, batchSize, seqLen, steps, seed }, makeOptimizer, afterStep = () => {}) {
  const model = new Transformer({ vocabSize: tokenizer.vocabSize, maxSeqLen: seqLen, ...config });
  const params = model.init(seed);
  const optimizer = makeOptimizer(params);
  const windows = new TokenDataset(train, { seqLen, batchSize, seed });
  const form = { shape: [batchSize, seqLen], dtype: "int32" };
  const gradients = captureStep((batch) => valueAndGrad((p) => model.loss(p, batch), params), {
    inputs: { tokens: form, targets: form },
  });
  const losses = [];
  let sum;
  let start = performance.now();
  let seconds = 0;
  for (let step = 1; step <= steps; step++) {
    const { grads, total } = scope(() => {
      const { tokens, targets } = windows.next();
      const { value, grads } = gradients({ tokens, targets });
      optimizer.step(grads);
      return { grads, total: sum === undefined ? value : sum.add(value) };
    });
    sum?.dispose();
    sum = total;
    if (step % averaged === 0 || step === steps) {
      const count = step % averaged || averaged;
      losses.push([step, round((await sum.item()) / count)]);
      sum.dispose();
      sum = undefined;
    }
    seconds += performance.now() - start;
    await afterStep(step, grads);
    for (const grad of Object.values(grads)) grad.dispose();
    start = performance.now();
    if (!Number.isFinite(losses.at(-1)?.[1] ?? 0)) break;
  }
  const loss = round(await validationLoss(model, params, seqLen));
  const result = {
    // JSON has no infinity: null is the loss of a run that diverged.
    loss: Number.isFinite(loss) ? loss : null,
    losses,
    seconds: Number((seconds / 1000).toFixed(2)),
    stateBytes: optimizer.stateBytes(),
    shapes: Object.values(params).map(({ shape }) => [...shape]),
  };
  gradients.dispose();
  optimizer.dispose();
  model.dispose();
  for (const param of Object.values(params)) param.dispose();
  return result;
}

const round = (x) => Number(x.toFixed(4));
