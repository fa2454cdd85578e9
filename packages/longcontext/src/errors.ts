/** What can be wrong with a request for a sample, beside an option outside its domain. */
import { LlmeffError } from "@llmeff/native/errors";

/** What must be in the prompt is longer than the budget. A prompt is never cut to fit. */
export class BudgetTooSmallError extends LlmeffError {
  /** The smallest `maxTokens` with which the sample can be made. */
  readonly needed: number;
  readonly maxTokens: number;

  constructor(where: string, needed: number, maxTokens: number) {
    super(
      "ERR_BUDGET_TOO_SMALL",
      `[${where}] the fixed part of the prompt and the answer's reserve need ${needed} tokens; received maxTokens ${maxTokens}. Give a larger budget or a smaller complexity.`,
    );
    this.needed = needed;
    this.maxTokens = maxTokens;
  }
}

/** The filler ended before the budget was met. */
export class HaystackTooShortError extends LlmeffError {
  /** Tokens of the prompt with all the filler there is. */
  readonly promptTokens: number;
  readonly room: number;

  constructor(where: string, promptTokens: number, room: number) {
    super(
      "ERR_HAYSTACK_TOO_SHORT",
      `[${where}] the haystack must fill ${room} tokens; with all of it the prompt has ${promptTokens}. Give more text or a smaller budget.`,
    );
    this.promptTokens = promptTokens;
    this.room = room;
  }
}

/** No sample with the wanted properties was found in the allowed number of draws. */
export class GenerationError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_GENERATION", message, options);
  }
}
