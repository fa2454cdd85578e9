import { OptionError, ShapeError } from "@llmeff/native";

/** The axes of each operand and of the result by name: a letter, or `.i` for the axis `i` places before the end of `...`. */
export interface EinsumSpec {
  inputs: readonly (readonly string[])[];
  output: readonly string[];
}

const term = /^[A-Za-z]*(?:\.\.\.[A-Za-z]*)?$/;

/** Reads `"ij,jk->ik"` for operands of the given ranks. */
export function parseEinsum(spec: string, ranks: readonly number[]): EinsumSpec {
  const text = typeof spec === "string" ? spec.replaceAll(" ", "") : "";
  const [left = "", right, ...more] = text.split("->");
  const terms = left.split(",");
  if (typeof spec !== "string" || more.length > 0 || ![...terms, right ?? ""].every((part) => term.test(part))) {
    throw new OptionError(
      `[einsum] expected letters and at most one ... for each operand, as in "...ij,jk->...ik"; received ${JSON.stringify(spec)}.`,
    );
  }
  if (terms.length !== ranks.length) {
    throw new OptionError(`[einsum] "${spec}" is for ${terms.length} operands; received ${ranks.length}.`);
  }
  const inputs = terms.map((part, i) => labelsOf(part, ranks[i]!, i));
  const dots = inputs.map((labels) => labels.filter(isDots));
  const longest = dots.reduce((a, b) => (b.length > a.length ? b : a), []);
  const output = right === undefined ? implicitOutput(inputs, longest) : withDots(right, longest);
  checkOutput(spec, inputs, output);
  if (right !== undefined && longest.length > 0 && !right.includes("...")) {
    throw new OptionError(`[einsum] the operands of "${spec}" have axes under ..., which the result must have too.`);
  }
  return { inputs, output };
}

function isDots(label: string): boolean {
  return label.startsWith(".");
}

function withDots(part: string, dots: readonly string[]): string[] {
  const [before = "", after] = part.split("...");
  return after === undefined ? [...before] : [...before, ...dots, ...after];
}

function labelsOf(part: string, rank: number, operand: number): string[] {
  const letters = part.replace("...", "").length;
  const rest = rank - letters;
  if (rest < 0 || (rest > 0 && !part.includes("..."))) {
    throw new ShapeError(`[einsum] operand ${operand + 1} has ${rank} axes; "${part}" names ${letters}.`);
  }
  return withDots(
    part,
    Array.from({ length: rest }, (_, i) => `.${rest - i}`),
  );
}

function implicitOutput(inputs: readonly (readonly string[])[], dots: readonly string[]): string[] {
  const letters = inputs.flat().filter((label) => !isDots(label));
  const once = letters.filter((label) => letters.indexOf(label) === letters.lastIndexOf(label));
  return [...dots, ...once.sort()];
}

function checkOutput(spec: string, inputs: readonly (readonly string[])[], output: readonly string[]): void {
  for (const [i, label] of output.entries()) {
    if (output.indexOf(label) < i) throw new OptionError(`[einsum] the result of "${spec}" names "${label}" twice.`);
    if (!inputs.some((labels) => labels.includes(label))) {
      throw new OptionError(`[einsum] the result of "${spec}" names "${label}", which no operand has.`);
    }
  }
}
