import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TokenDataset } from "@llmeff/data";
import { AdamW } from "@llmeff/optim";
import { mul, OptionError, scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { bitsOf, disposeAll, seqLen, student, studentModel, teacherModel, teacherOf, text } from "../test/setup.js";
import { type CodistillOptions, codistill, distillationLoss, type Peer } from "./index.js";

const folder = mkdtempSync(join(tmpdir(), "llmeff-codistill-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function peerOf(seed: number, rest: Partial<Peer> = {}): Peer {
  const params = seed === 3 ? teacherModel.init(seed) : studentModel.init(seed);
  return {
    model: seed === 3 ? teacherOf(3).model : student,
    params,
    optimizer: new AdamW(params, { learningRate: 5e-3, maxGradNorm: 1 }),
    data: new TokenDataset(text(), { seqLen, batchSize: 2, seed }),
    clock: () => 0,
    ...rest,
  };
}

async function run(peers: readonly Peer[], options: CodistillOptions) {
  const losses: number[][] = peers.map(() => []);
  const order: string[] = [];
  for await (const { peer, event } of codistill(peers, options)) {
    if (event.type !== "step") continue;
    losses[peer]!.push(event.loss);
    order.push(`${peer}:${event.step}`);
  }
  const bits = await Promise.all(peers.map(({ params }) => bitsOf(params)));
  for (const { params } of peers) disposeAll(params);
  return { losses, order, bits };
}

describe("codistill", () => {
  it("trains side by side, with the loss of the others' copies", async () => {
    const peers = () => [peerOf(1), peerOf(2), peerOf(3)];
    const { losses, order } = await run(peers(), { steps: 3, weight: 0.5 });
    expect(order).toEqual(["0:1", "1:1", "2:1", "0:2", "1:2", "2:2", "0:3", "1:3", "2:3"]);
    // The first step of the second peer, from parameters of the start: all peers' first step is taken from copies of before.
    const [a, b, c] = peers();
    const { tokens, targets } = b!.data.next() as { tokens: Int32Array; targets: Int32Array };
    const wanted = await scope(() => {
      const batch = { tokens: toTensor(tokens), targets: toTensor(targets) };
      const logits = (peer: Peer, model: typeof studentModel) => model.logits(peer.params, batch.tokens);
      const options = { labels: batch.targets, ceWeight: 1, kdWeight: 0.5 };
      const teachers = [{ logits: logits(a!, studentModel) }, { logits: logits(c!, teacherModel) }];
      return distillationLoss(logits(b!, studentModel), { teachers }, options).itemSync();
    });
    expect(losses[1]![0]).toBeCloseTo(wanted, 5);
  });

  it("learns alone before the burn-in's end, and then not", async () => {
    const pair = () => [peerOf(1), peerOf(2)];
    const alone = await run(pair(), { steps: 5, burnIn: 5 });
    const late = await run(pair(), { steps: 5, burnIn: 3 });
    expect(late.losses.map((own) => own.slice(0, 3))).toEqual(alone.losses.map((own) => own.slice(0, 3)));
    expect(late.losses[0]![3]).toBeGreaterThan(alone.losses[0]![3]! + 1);
  });

  it("uses copies that are some steps old", async () => {
    const pair = () => [peerOf(1), peerOf(2)];
    const fresh = await run(pair(), { steps: 4 });
    const stale = await run(pair(), { steps: 4, syncEvery: 3 });
    // Steps 1 and 4 begin with new copies; the second uses those of before.
    expect(stale.losses[0]![0]).toBe(fresh.losses[0]![0]);
    expect(stale.losses[0]![1]).not.toBe(fresh.losses[0]![1]);
  });

  it("resumes as if never interrupted from steps in which copies are taken, and from no others", async () => {
    const options = { weight: 1, burnIn: 1, syncEvery: 2 };
    const whole = await run([peerOf(1), peerOf(2)], { ...options, steps: 7 });
    for (const cut of [1, 3, 5, 4]) {
      const peers = (resume: boolean) =>
        [1, 2].map((seed) => peerOf(seed, { checkpoint: { directory: join(folder, `${cut}-${seed}`) }, resume }));
      const first = await run(peers(false), { ...options, steps: cut });
      const again = run(peers(true), { ...options, steps: 7 });
      if (cut === 4) {
        await expect(again).rejects.toThrow("peer 0 resumes after step 4, in which no copies are taken");
        continue;
      }
      const rest = await again;
      expect(first.losses.map((own, i) => [...own, ...rest.losses[i]!])).toEqual(whole.losses);
      expect(rest.bits).toEqual(whole.bits);
    }
  });

  it("gives the others no gradient", () => {
    scope(() => {
      const [own, other] = [1, 2].map((seed) => mul(studentModel.init(seed)["lm_head.weight"]!, 10));
      const { grads } = valueAndGrad(
        ([a, b]: readonly [Tensor, Tensor]) => distillationLoss(a, { logits: b }).add(b.sum().mul(0)),
        [own!, other!] as const,
      );
      expect(grads[0].dataSync().some((x) => x !== 0)).toBe(true);
      expect(grads[1].dataSync().every((x) => x === 0)).toBe(true);
    });
  });

  it("refuses fewer than two peers and options outside their domain", () => {
    const pair = [peerOf(1), peerOf(2)];
    expect(() => codistill(pair.slice(1), { steps: 1 })).toThrow("expected at least two peers; received 1");
    expect(() => codistill(pair, { steps: 1, syncEvery: 0 })).toThrow(OptionError);
    expect(() => codistill(pair, { steps: 1, burnIn: -1 })).toThrow("burnIn must be an integer of at least 0");
    expect(() => codistill(pair, { steps: 1, weight: Number.NaN })).toThrow("weight must be at least 0");
    for (const { params } of pair) disposeAll(params);
  });
});

function toTensor(ids: Int32Array): Tensor {
  return tensor(ids, { shape: [2, seqLen] });
}
