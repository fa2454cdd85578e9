import { LlmeffError } from "@llmeff/tensor";

export interface Misshapen {
  name: string;
  /** The shape that the model has. */
  expected: readonly number[];
  /** The shape that the file has. */
  received: readonly number[];
}

/** All differences between the tensors that a model needs and those that a checkpoint holds. */
export interface TensorDifferences {
  missing: string[];
  unexpected: string[];
  misshapen: Misshapen[];
}

const shape = (dimensions: readonly number[]) => `[${dimensions.join(", ")}]`;

function describe({ missing, unexpected, misshapen }: TensorDifferences): string {
  const parts = [
    ...misshapen.map(({ name, expected, received }) => {
      return `"${name}" is in the file with shape ${shape(received)} but the model has ${shape(expected)}`;
    }),
    ...(missing.length > 0 ? [`the file lacks ${missing.map((name) => `"${name}"`).join(", ")}`] : []),
    ...(unexpected.length > 0 ? [`the model has no ${unexpected.map((name) => `"${name}"`).join(", ")}`] : []),
  ];
  return parts.join("; ");
}

/** A checkpoint whose tensors are not those of the model that its configuration describes. */
export class CheckpointError extends LlmeffError {
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  readonly misshapen: readonly Misshapen[];

  constructor(where: string, differences: TensorDifferences) {
    super(
      "ERR_CHECKPOINT",
      `[loadHuggingFace] ${where}: ${describe(differences)}. Do config.json and the weights belong together?`,
    );
    this.missing = differences.missing;
    this.unexpected = differences.unexpected;
    this.misshapen = differences.misshapen;
  }
}
