/** Documents packed into rows under a mixture of objectives, and the held-out ones under each. */
import { DocumentBatches, heldOutDocuments, mixDocuments, type TextObjective, type Tokenizer } from "@llmeff/data";
import type { DataOf } from "../../config/data-schema.js";
import { defined } from "../defined.js";
import { openSources, type Source } from "./document-sources.js";
import { objectivesOf } from "./objectives.js";
import type { LossSet, LossSets, OpenDataOptions, OpenedData } from "./open-data.js";
import { readAhead } from "./read-ahead.js";
import { specialTokens } from "./special-tokens.js";
import { textBytes } from "./text-bytes.js";

export async function openDocuments(data: DataOf<"documents">, options: OpenDataOptions): Promise<OpenedData> {
  const { seqLen, batchSize, packing, lookAhead, temperature } = data;
  const { tokenizer, eos, sources, close } = await openSources(data, options);
  try {
    const { training, measured } = objectivesOf(data);
    const used = Math.max(tokenizer.vocabSize, eos + 1);
    const { vocabSize, ...special } = specialTokens(tokenizer, used, [...training, ...measured.values()], data);
    const rows = { seqLen, batchSize, padding: eos, eos, ...special };
    const { seed, evaluateWindows: maxRows } = options;
    const mixed = mixDocuments(
      sources.map(({ name, train, weight }) => ({ name, documents: train, ...defined({ weight }) })),
      { seed, ...defined({ temperature }) },
    );
    const packed = { ...rows, seed, objectives: training, ...defined({ packing, lookAhead }) };
    const train = readAhead(new DocumentBatches(mixed, packed));
    const measure = (objective: TextObjective) =>
      heldOutSets(sources, tokenizer, { ...rows, objectives: [objective], maxRows });
    const causal = await measure({ kind: "causal", weight: 1 });
    const objectives: Record<string, LossSets> = {};
    for (const [name, objective] of measured) objectives[name] = await measure(objective);
    const valid = { metric: "validationLoss" as const, causal, objectives };
    return { train, valid, vocabSize, seqLen, tokenizer, stopTokens: [eos], close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function heldOutSets(
  sources: readonly Source[],
  tokenizer: Tokenizer,
  options: Parameters<typeof heldOutDocuments>[1] & { objectives: readonly [TextObjective] },
): Promise<LossSets> {
  const [{ kind }] = options.objectives;
  const sets: Record<string, LossSet> = {};
  for (const { name, valid } of sources) {
    const batches = await heldOutDocuments(valid, options);
    const bytes = () => batches.examples.reduce((sum, { tokens }) => sum + textBytes(tokenizer, tokens), 0);
    sets[name] = kind === "causal" ? { batches, bytes: bytes() } : { batches };
  }
  return sets;
}
