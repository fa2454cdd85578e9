import { DocumentBatches, documentSet, shuffledDocuments } from "@llmeff/data";
import { Transformer, type TransformerConfig } from "@llmeff/models";
import { AdamW } from "@llmeff/optim";
import { copyInto } from "@llmeff/tensor";
import { type ModelState, type Objective, train } from "@llmeff/train";
import { describe, expect, it } from "vitest";
import { bitsOf, disposeAll, teacherModel, text, textData, vocabSize } from "../test/setup.js";
import { distill, tokenModel } from "./index.js";

const base = { vocabSize, dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 32 };
const configs: Record<string, TransformerConfig> = {
  plain: base,
  "tied, with a softcap": { ...base, tieEmbeddings: true, finalSoftcap: 5 },
  muP: { ...base, mup: { baseWidth: 8 } },
  "a mixture of experts": { ...base, experts: { numExperts: 4, topK: 2, auxCoef: 0.01, zCoef: 0.001 } },
  "learned positions": { ...base, positions: "learned" },
};

const documents = documentSet(Array.from({ length: 20 }, (_, i) => text().subarray(9 * i, 9 * i + 4 + i)));
const packed = () =>
  new DocumentBatches(shuffledDocuments(documents), {
    seqLen: 32,
    batchSize: 2,
    objectives: "palm2-like",
    sentinels: { first: 12, count: 8 },
  });

async function trained(model: Transformer, objective: Objective, data = packed() as never) {
  const params = model.init(1);
  const optimizer = new AdamW(params, { learningRate: 1e-2 });
  const losses: number[] = [];
  for await (const event of train({ params, objective, optimizer, data, steps: 4 }))
    if (event.type === "step") losses.push(event.loss);
  const bits = await bitsOf(params);
  disposeAll(params);
  return { losses, bits };
}

describe("tokenModel", () => {
  it.each(Object.entries(configs))(
    "has the model's own loss without a teacher, masks and balance included: %s",
    async (_name, config) => {
      const model = new Transformer(config);
      const own: Objective = (params, { tokens, targets, extras: { documents, prefix, positions } }) =>
        model.loss(params, {
          ...{ tokens, targets, documents: documents!, prefix: prefix! },
          ...(config.positions === "learned" && { positions: positions! }),
        });
      const teacher = { model: tokenModel(teacherModel), params: teacherModel.init(2) };
      const objective = distill({ student: tokenModel(model), teacher, omega: 0, schedule: { kind: "always" } });
      expect(await trained(model, objective)).toEqual(await trained(model, own));
      disposeAll(teacher.params);
      objective.dispose();
    },
  );

  it("adds the balance of experts in both stages", async () => {
    const withCoefficients = (auxCoef: number) => new Transformer({ ...base, experts: { numExperts: 4, auxCoef } });
    const run = async (auxCoef: number) => {
      const model = withCoefficients(auxCoef);
      const teacher = { model: tokenModel(teacherModel), params: teacherModel.init(2) };
      const objective = distill({ student: tokenModel(model), teacher, schedule: { kind: "step", steps: 1 } });
      const { losses } = await trained(model, objective, textData() as never);
      objective.dispose();
      disposeAll(teacher.params);
      return losses;
    };
    const [without, with1] = [await run(0), await run(1)];
    // Balanced experts have a balancing loss of 1 in each of two layers, and a little more where they aren't.
    expect(with1[0]! - without[0]!).toBeGreaterThan(1.9);
    expect(with1[2]! - without[2]!).toBeGreaterThan(1.9);
  });

  it("balances the routers of a student by their biases, in both stages", async () => {
    const experts = { numExperts: 4, topK: 1, score: "sigmoid", routerBias: true } as const;
    const run = async (own: boolean, captureStep = false) => {
      const model = new Transformer({ ...base, experts });
      const params = model.init(1);
      const state = model.initState();
      const modelState: ModelState = {
        tensors: state,
        update(loads) {
          const routers = Object.entries(loads).map(([layer, load]) => [layer, { load }]);
          const next = model.nextState(state, Object.fromEntries(routers));
          for (const [name, bias] of Object.entries(next)) copyInto(state[name]!, bias);
          disposeAll(next);
        },
      };
      const teacher = { model: tokenModel(teacherModel), params: teacherModel.init(2) };
      const distilled = distill({
        ...{ student: tokenModel(model, { state }), teacher, omega: own ? 0 : 0.5 },
        schedule: { kind: "step", steps: 3 },
      });
      const plain: Objective = (p, { tokens, targets }, { collect }) => {
        const { loss, routers } = model.lossParts(p, { tokens, targets }, { state });
        for (const [layer, { load }] of Object.entries(routers)) collect(layer, load);
        return loss;
      };
      const optimizer = new AdamW(params, { learningRate: 1e-2 });
      const given = { params, optimizer, data: textData(), steps: 6, modelState, captureStep };
      for await (const _ of train({ ...given, objective: own ? plain : distilled }));
      const bits = await bitsOf({ ...params, ...state });
      disposeAll({ ...params, ...state, ...teacher.params });
      distilled.dispose();
      return bits;
    };
    const [plain, distilled] = [await run(true), await run(false)];
    const biases = (bits: Record<string, string>) =>
      Object.entries(bits).filter(([name]) => name.endsWith("router.bias"));
    for (const bits of [plain, distilled]) {
      expect(biases(bits)).toHaveLength(2);
      for (const [, bias] of biases(bits)) expect(bias).not.toMatch(/^0+$/);
    }
    expect(await run(false, true)).toEqual(distilled);
  });
});
