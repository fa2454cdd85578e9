import type { Sample } from "../sample.js";
import { runProgram } from "../tasks/latent-list/program.js";
import type { Solution } from "./solution.js";

const PROMPT = ">>> ";

/** Runs the program as it stands in the prompt, filler and all, by the executor that the golden programs hold. */
export function solveLatentList({ messages }: Sample): Solution {
  const text = messages.at(-1)!.content;
  const start = text.lastIndexOf(`\n${PROMPT}a = [`);
  const lines = text.slice(start + 1).split("\n");
  const problems: string[] = [];
  if (start < 0 || lines.pop() !== "Output:") problems.push("there is no program that ends in `Output:`");
  const stray = lines.find((line) => !line.startsWith(PROMPT));
  if (stray !== undefined) problems.push(`a line of the program does not begin with ${PROMPT}: ${stray}`);
  const { output, error } = runProgram(lines.map((line) => line.slice(PROMPT.length)));
  if (error !== null) problems.push(`the program raises ${error}`);
  return { answer: output ?? undefined, problems };
}
