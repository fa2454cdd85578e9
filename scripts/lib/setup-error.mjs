/** A problem that the person at the keyboard has to solve; printed without a stack. */
export class SetupError extends Error {
  name = "SetupError";
}
