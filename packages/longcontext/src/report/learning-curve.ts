/** In-context learning: the score against the number of examples in the prompt, which is the samples' complexity. */
import type { LineChart } from "@llmeff/report";
import type { TaskResult } from "./aggregate.js";

/** The task whose samples differ in nothing else. */
const learningTask = "conlang_pairs";

/** The chart, where some model was shown different numbers of examples. */
export function learningCurve(task: string, results: readonly TaskResult[]): LineChart[] {
  if (task !== learningTask || !results.some(({ byComplexity }) => byComplexity.length > 1)) return [];
  return [
    {
      kind: "lineChart",
      title: "In-context learning",
      caption: "Mean chrF of translations by the number of sentence pairs in the prompt; the band is a 95 % interval.",
      x: { label: "sentence pairs", scale: "log2" },
      y: { label: "chrF", style: "percent", min: 0, max: 1 },
      series: results.map(({ model, byComplexity }) => ({
        name: model,
        x: byComplexity.map(({ complexity }) => complexity),
        y: byComplexity.map(({ mean }) => mean!),
        low: byComplexity.map(({ low, mean }) => low ?? mean!),
        high: byComplexity.map(({ high, mean }) => high ?? mean!),
      })),
    },
  ];
}
