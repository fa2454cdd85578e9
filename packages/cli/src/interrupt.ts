/** Ctrl-C: the first time politely, the second time at once. */
import { exitCodes, InterruptedError } from "./errors.js";
import { type Io, note } from "./io.js";

/**
 * Runs `body` with a signal that the first interrupt aborts, its reason an `InterruptedError`. The second interrupt ends the process.
 * A terminal may deliver one Ctrl-C twice (through a parent process too), so interrupts within half a second count as one.
 *
 * @param doing - what the first interrupt brings about, for the message
 */
export async function interruptible<T>(
  io: Io,
  body: (signal: AbortSignal) => Promise<T>,
  doing = "finishing the step and saving",
): Promise<T> {
  const controller = new AbortController();
  let first: number | undefined;
  const stop = io.onInterrupt(() => {
    if (first === undefined) {
      first = performance.now();
      note(io, `\n${doing}; press Ctrl-C again to end at once`);
      controller.abort(new InterruptedError());
    } else if (performance.now() - first > 500) {
      io.exit(exitCodes.interrupted);
    }
  });
  try {
    return await body(controller.signal);
  } finally {
    stop();
  }
}
