/**
 * Codistillation (arXiv:1804.03235): peers that learn from a text and from each other's predictions, from copies of each other that may be some steps old.
 * Each has its own parameters, optimizer and order of the data.
 */
import { copyInto, keep, linearCrossEntropy, mul, noGrad, OptionError, scope } from "@llmeff/tensor";
import { type Objective, type TrainEvent, type TrainOptions, train } from "@llmeff/train";
import { linearDistillationParts } from "./distillation-loss.js";
import { type Parameters, scoresBy, type TokenModel, trainedStates } from "./model.js";

/** What `train` takes, with the model instead of an objective. */
export interface Peer extends Omit<TrainOptions, "objective" | "steps"> {
  model: TokenModel;
}

export interface CodistillOptions {
  /** Of each peer. */
  steps: number;
  /** λ: weight of the others' predictions beside the cross-entropy, which keeps weight 1; default 1. */
  weight?: number;
  /** Steps before which each learns alone; default 0. */
  burnIn?: number;
  /** Steps after which the copies of the others are taken anew; default 1. */
  syncEvery?: number;
}

/** An event of one of the peers. */
export interface PeerEvent {
  peer: number;
  event: TrainEvent;
}

/**
 * Trains peers side by side, each step of one after that of the others: `CE + λ · mean over the others of soft-CE(other)`, temperature 1, over the tokens with
 * a label. Gradients never reach the others.
 *
 * A resumed run continues as if it hadn't been interrupted if its checkpoints are of a step in which copies are taken (a multiple of `syncEvery` after the
 * burn-in): set `checkpoint.every` so. Others are refused.
 *
 * @throws {OptionError} for fewer than two peers or an option outside its domain; while running, if the peers resume from different steps
 */
export function codistill(
  peers: readonly Peer[],
  options: CodistillOptions,
): AsyncGenerator<PeerEvent, void, undefined> {
  const { steps, weight = 1, burnIn = 0, syncEvery = 1 } = options;
  if (peers.length < 2) throw new OptionError(`[codistill] expected at least two peers; received ${peers.length}.`);
  if (!(weight >= 0 && Number.isFinite(weight))) {
    throw new OptionError(`[codistill] weight must be at least 0; received ${weight}.`);
  }
  for (const [name, value, least] of [
    ["burnIn", burnIn, 0],
    ["syncEvery", syncEvery, 1],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new OptionError(`[codistill] ${name} must be an integer of at least ${least}; received ${value}.`);
    }
  }
  return sideBySide(peers, { steps, weight, burnIn, syncEvery });
}

async function* sideBySide(
  peers: readonly Peer[],
  options: Required<CodistillOptions>,
): AsyncGenerator<PeerEvent, void, undefined> {
  const copies = peers.map(({ params }) => copyOf(params));
  const runs = peers.map(({ model, ...rest }, own) => {
    const objective = objectiveOf(model, peers, copies, own, options);
    return train({ ...rest, steps: options.steps, objective });
  });
  const done = peers.map(() => 0);
  const finished = new Set<number>();
  try {
    while (finished.size < peers.length) {
      if (finished.size === 0) exchange(peers, copies, done, options);
      for (const [peer, run] of runs.entries()) {
        const step = yield* untilStep(run, peer, options);
        if (step === undefined) finished.add(peer);
        else done[peer] = step;
      }
    }
  } finally {
    for (const run of runs) await run.return();
    for (const params of copies) for (const one of Object.values(params)) one.dispose();
  }
}

/** The events of a peer up to its next step. @returns the steps that it has done then; undefined at its end */
async function* untilStep(
  run: AsyncGenerator<TrainEvent, void, undefined>,
  peer: number,
  options: Required<CodistillOptions>,
): AsyncGenerator<PeerEvent, number | undefined, undefined> {
  for (;;) {
    const { value: event, done } = await run.next();
    if (done) return undefined;
    if (event.type === "resumed" && event.step > options.burnIn && !isDue(event.step, options)) {
      throw new OptionError(
        `[codistill] peer ${peer} resumes after step ${event.step}, in which no copies are taken, so they are lost. Let checkpoint.every be a multiple of syncEvery (${options.syncEvery}) after the burn-in (${options.burnIn}).`,
      );
    }
    yield { peer, event };
    if (event.type === "resumed" || event.type === "step") return event.step;
  }
}

function isDue(step: number, { burnIn, syncEvery }: Required<CodistillOptions>): boolean {
  return step >= burnIn && (step - burnIn) % syncEvery === 0;
}

/** Takes the copies anew where it is due. */
function exchange(
  peers: readonly Peer[],
  copies: readonly Parameters[],
  done: readonly number[],
  options: Required<CodistillOptions>,
): void {
  const [step] = done as [number];
  if (done.some((other) => other !== step)) {
    throw new OptionError(`[codistill] the peers are at steps ${done.join(", ")}; they must resume from one step.`);
  }
  if (!isDue(step, options)) return;
  for (const [i, { params }] of peers.entries()) {
    for (const [name, param] of Object.entries(params)) copyInto(copies[i]![name]!, param);
  }
}

function copyOf(params: Parameters): Parameters {
  return Object.fromEntries(Object.entries(params).map(([name, param]) => [name, keep(scope(() => mul(param, 1)))]));
}

function objectiveOf(
  model: TokenModel,
  peers: readonly Peer[],
  copies: readonly Parameters[],
  own: number,
  { weight, burnIn }: Required<CodistillOptions>,
): Objective {
  const { softcap = 0 } = model;
  const objective: Objective = (params, batch, context) => {
    const { stage } = context;
    const { hidden, balanced } = trainedStates(model, params, batch, context);
    const output = model.outputWeight(params);
    if (stage === "alone") return balanced(linearCrossEntropy(hidden, output, batch.targets, { softcap }));
    const others = peers.map((_, i) => i).filter((i) => i !== own);
    const teachers = noGrad(() => others.map((i) => scoresBy({ model: peers[i]!.model, params: copies[i]! }, batch)));
    const options = { labels: batch.targets, ceWeight: 1, kdWeight: weight, softcap };
    return balanced(linearDistillationParts(hidden, output, { teachers }, options).loss);
  };
  return Object.assign(objective, { stageAt: (step: number) => (step <= burnIn ? "alone" : "together") });
}
