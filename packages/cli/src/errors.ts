/** What ends the command early, and with which exit code. */
import { LlmeffError } from "@llmeff/native/errors";

/** Exit codes of the command; `incomplete`: an evaluation that lacks answers. */
export const exitCodes = { ok: 0, failure: 1, usage: 2, incomplete: 3, interrupted: 130 } as const;

/** The command line or a config can't be used as it is. */
export class UsageError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_USAGE", message, options);
  }
}

/** Ctrl-C: what was running has been saved as far as it can be. `advice` says how to go on. */
export class InterruptedError extends LlmeffError {
  constructor(message = "[llmeff] interrupted.", options?: ErrorOptions) {
    super("ERR_INTERRUPTED", message, options);
  }
}
