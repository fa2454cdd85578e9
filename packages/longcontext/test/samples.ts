import { GENERATOR_VERSION, SAMPLE_SCHEMA, type Sample } from "../src/sample.js";

/** A sample whose prompt tells its number, for tests of what isn't about tasks. */
export function plainSample(index: number, overrides: Partial<Sample> = {}): Sample {
  const content = `Reply with the word number${index}.`;
  return {
    schema: SAMPLE_SCHEMA,
    id: `plain-${index}`,
    task: "niah",
    seed: 0,
    index,
    generatorVersion: GENERATOR_VERSION,
    budget: { maxTokens: 4096, reserve: 64, promptTokens: Math.ceil(content.length / 4), tokenizer: "quarter-bytes" },
    complexity: 1,
    messages: [{ role: "user", content }],
    target: [`number${index}`],
    meta: { maxUnitTokens: 1, fill: 1 },
    ...overrides,
  };
}

export function plainSamples(count: number): Sample[] {
  return Array.from({ length: count }, (_, i) => plainSample(i));
}

/** 1 if the reply holds the target. */
export function scorePlain(sample: Sample, text: string) {
  const [target] = sample.target as string[];
  return { score: text.includes(target!) ? 1 : 0, extracted: text };
}
