/** An endpoint full of trouble: of 500 requests about 40 % meet some first, and 10 get no answer at all. */
import type { Behaviour } from "../../../test/openai-endpoint.js";

export function numberOf(prompt: string): number {
  return Number(/number(\d+)/.exec(prompt)![1]);
}

/**
 * By the number in the prompt and the try, always the same.
 *
 * @param retryAfter - seconds that a status 429 asks to wait
 */
export function trouble(prompt: string, times: number, retryAfter: string): Behaviour {
  const number = numberOf(prompt);
  const answer: Behaviour = { kind: "answer" };
  if (number % 50 === 7) return { kind: "status", status: 500 };
  if (times > 1 + (number % 3)) return answer;
  switch (number % 10) {
    case 1:
      return { kind: "status", status: 429, headers: { "retry-after": retryAfter } };
    case 2:
      return { kind: "status", status: 500 };
    case 3:
      return { ...answer, delayMs: 15 };
    case 4:
      return { kind: "cut" };
    case 5:
      return { kind: "garbage" };
    case 6:
      return { kind: "unfinished" };
    default:
      return answer;
  }
}
