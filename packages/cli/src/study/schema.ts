/** The JSON of a study: parts, each with a base config and arms that differ from it. */
import { z } from "zod";
import {
  finiteNumber,
  flag,
  folderName,
  list,
  nonNegativeNumber,
  object,
  oneOf,
  positiveInteger,
  positiveNumber,
  ratio,
  show,
  text,
  wholeNumber,
} from "../config/fields.js";
import { slug } from "./slug.js";

const anyObject = () => z.record(z.string(), z.unknown(), { error: () => "expected an object of settings." });

/** Shown as it is; its slug is a folder. */
const title = () =>
  text("a name with letters or digits").refine((name) => slug(name) !== "", "expected a name with letters or digits.");

const arm = object({
  name: title(),
  description: text().optional(),
  /** Merged into the base's `model` (JSON merge patch: objects key by key, null removes). */
  model: anyObject().optional(),
  /** Merged into the base's `optimizer`. */
  optimizer: anyObject().optional(),
  /** What the sweep tries; as many for every arm. */
  learningRates: list(positiveNumber(), "learning rates"),
});

const sample = object({
  prompt: text(),
  tokens: positiveInteger(),
  temperature: nonNegativeNumber().optional(),
  topK: positiveInteger().optional(),
  topP: ratio().optional(),
  seed: wholeNumber().optional(),
});

/** Each is a folder, so none may come twice. */
const differentSeeds = () =>
  list(wholeNumber(), "seeds").refine((seeds) => new Set(seeds).size === seeds.length, {
    error: ({ input }) => `expected seeds that differ from each other; received ${show(input)}.`,
  });

const part = object({
  name: title(),
  title: text(),
  description: text().optional(),
  metric: oneOf(["validationLoss", "accuracy"]),
  /** Tokens are counted up to the first evaluation that reaches it. */
  target: finiteNumber(),
  /** Refuse arms whose numbers of parameters that a token meets differ by more than 2 %. */
  equalParameters: flag().optional(),
  /** Every arm is trained once with each of these seeds; default the base's alone. */
  seeds: differentSeeds().optional(),
  /** A training config without name and learning rate. */
  base: anyObject(),
  arms: list(arm, "arms"),
  sweep: object({
    /** Steps of a run of the sweep; default the base's. */
    steps: positiveInteger().optional(),
    /** Each learning rate is run with each of these seeds; default the base's. */
    seeds: list(wholeNumber(), "seeds").optional(),
  }).optional(),
  /** Every text arm continues this prompt at the end. */
  sample: sample.optional(),
});

export const studySchema = object({
  name: folderName(),
  title: text(),
  description: text().optional(),
  parts: list(part, "parts"),
});

export type StudyJson = z.infer<typeof studySchema>;
export type PartJson = StudyJson["parts"][number];
export type SampleSettings = z.infer<typeof sample>;
