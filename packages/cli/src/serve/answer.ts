/** From a checked request to its reply: all answers to all prompts at once, whole or as they come. */
import { once } from "node:events";
import type { WriteOptions } from "../run/write-text.js";
import type { Exchange } from "./exchange.js";
import { type Answer, type ChoiceForm, type ReplyForm, replyHead, type Usage } from "./replies.js";
import type { GenerationRequest } from "./request-fields.js";
import type { ServedModel } from "./served-model.js";
import type { ChoiceEnd, Piece, Prompt } from "./write-choice.js";

/** One answer to be written. */
interface Choice {
  form: ChoiceForm;
  prompt: Prompt;
  options: WriteOptions;
  /** What it begins with. */
  echo: Promise<Piece> | undefined;
  /** Where the scores of the prompt are told, is given them by the first of its answers: others wait for them. */
  tellEcho: ((piece: Piece) => void) | undefined;
}

export interface Asked {
  model: ServedModel;
  request: GenerationRequest;
  promptCount: number;
  /** Divides them into tokens; takes its time with long ones. */
  prompts(signal: AbortSignal): Promise<readonly Prompt[]>;
  /** The field that prompts came in. */
  promptField: string;
  form: ReplyForm;
}

/** @throws {ApiError} if a prompt leaves no room for what is asked */
function choicesOf({ model, request, promptField, form }: Asked, prompts: readonly Prompt[]): Choice[] {
  return prompts.flatMap((prompt, i) => {
    const scoresEcho = prompt.echo !== undefined && request.topLogProbs !== undefined;
    const options = model.choiceOptions(request, model.roomFor(prompt.ids, promptField, request), scoresEcho);
    let tellEcho: ((piece: Piece) => void) | undefined;
    const echo =
      prompt.echo === undefined
        ? undefined
        : new Promise<Piece>((resolve) => {
            if (scoresEcho) tellEcho = resolve;
            else resolve({ text: prompt.echo!, tokens: [] });
          });
    return Array.from({ length: request.n }, (_, n) => ({
      form: form.choice(i * request.n + n, request.topLogProbs !== undefined),
      prompt,
      options: options(n),
      echo,
      tellEcho: n === 0 ? tellEcho : undefined,
    }));
  });
}

/**
 * Writes the reply.
 *
 * @param admit - called with the number of answers before the first is begun; may refuse
 * @throws {ApiError} before the reply has begun, for what can't be answered; the exchange's reason if it is aborted
 */
export async function answer(
  asked: Asked,
  exchange: Exchange,
  admit: (sequences: number) => () => void,
): Promise<void> {
  // Before they are made: a small body may ask for millions.
  const leave = admit(asked.promptCount * asked.request.n);
  try {
    const choices = choicesOf(asked, await asked.prompts(exchange.signal));
    await (asked.request.stream ? stream(asked, choices, exchange) : replyWhole(asked, choices, exchange));
  } finally {
    leave();
  }
}

async function replyWhole(asked: Asked, choices: readonly Choice[], exchange: Exchange): Promise<void> {
  const answers = await all(choices, exchange, async (choice) => {
    const whole: Piece = { text: "", tokens: [] };
    const end = await write(asked, choice, exchange, async ({ text, tokens }) => {
      whole.text += text;
      for (const token of tokens) whole.tokens.push(token);
    });
    return { ...end, told: choice.form.whole({ ...whole, finish: end.finish } satisfies Answer) };
  });
  exchange.send(200, {
    ...replyHead(asked.form, asked.model.name, false),
    choices: answers.map(({ told }) => told),
    usage: usageOf(choices, answers),
  });
}

async function stream(asked: Asked, choices: readonly Choice[], exchange: Exchange): Promise<void> {
  const { request, form, model } = asked;
  const head = replyHead(form, model.name, true);
  const part = (choice: object) =>
    exchange.event({ ...head, choices: [choice], ...(request.includeUsage ? { usage: null } : {}) });
  exchange.beginEvents();
  const ends = await all(choices, exchange, async (choice) => {
    const { form } = choice;
    const opening = form.opening();
    if (opening !== undefined) await part(opening);
    const end = await write(asked, choice, exchange, async (piece) => {
      // Half a character, or what may be the beginning of a stop text: nothing to tell yet.
      if (piece.text !== "" || (request.topLogProbs !== undefined && piece.tokens.length > 0))
        await part(form.piece(piece));
    });
    await part(form.closing(end.finish));
    return end;
  });
  if (request.includeUsage) await exchange.event({ ...head, choices: [], usage: usageOf(choices, ends) });
  exchange.endEvents();
}

async function write(
  { model }: Asked,
  { prompt, options, echo, tellEcho }: Choice,
  { signal }: Exchange,
  onPiece: (piece: Piece) => Promise<void>,
): Promise<ChoiceEnd> {
  if (echo !== undefined && tellEcho === undefined) await onPiece(await unlessAborted(echo, signal));
  const pieces = model.write(prompt, { ...options, signal });
  try {
    for (;;) {
      const { value, done } = await pieces.next();
      if (done) return value;
      tellEcho?.(value); // the first piece; later ones change nothing
      await onPiece(value);
    }
  } finally {
    await pieces.return({ finish: "stop", tokens: 0 });
  }
}

/** What a promise gives, unless the signal is aborted before. */
async function unlessAborted<R>(promise: Promise<R>, signal: AbortSignal): Promise<R> {
  signal.throwIfAborted();
  const settled = new AbortController();
  try {
    const aborted = once(signal, "abort", { signal: settled.signal }).then(() => signal.throwIfAborted());
    return (await Promise.race([promise, aborted])) as R;
  } finally {
    settled.abort();
  }
}

/** Does the same for all choices. The first that fails ends the others, and nothing of them goes on afterwards. */
async function all<R>(
  choices: readonly Choice[],
  exchange: Exchange,
  task: (choice: Choice) => Promise<R>,
): Promise<R[]> {
  const running = choices.map((choice) =>
    task(choice).catch((error: Error) => {
      exchange.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(running);
  return Promise.all(running);
}

function usageOf(choices: readonly Choice[], ends: readonly ChoiceEnd[]): Usage {
  const prompts = new Set(choices.map(({ prompt }) => prompt));
  const prompt_tokens = [...prompts].reduce((n, { ids }) => n + ids.length, 0);
  const completion_tokens = ends.reduce((n, { tokens }) => n + tokens, 0);
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}
