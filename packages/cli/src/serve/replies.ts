/** Answers in the forms of OpenAI's two APIs, whole and in pieces. */
import { randomUUID } from "node:crypto";
import type { ChoiceEnd, Piece, ScoredToken } from "./write-choice.js";

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** An answer as it was written. */
export type Answer = Piece & Pick<ChoiceEnd, "finish">;

/** How one answer of a reply is told. */
export interface ChoiceForm {
  /** What comes before the first piece, if anything. */
  opening(): object | undefined;
  piece(piece: Piece): object;
  closing(finish: ChoiceEnd["finish"]): object;
  whole(answer: Answer): object;
}

/** The form of a reply and of its answers. */
export interface ReplyForm {
  idPrefix: string;
  object: string;
  /** Of the parts of a streamed reply. */
  partObject: string;
  /** @param scores - whether tokens are told with their log-probabilities */
  choice(index: number, scores: boolean): ChoiceForm;
}

/** What all parts of a reply begin with. */
export function replyHead(form: ReplyForm, model: string, streamed: boolean) {
  return {
    id: `${form.idPrefix}-${randomUUID()}`,
    object: streamed ? form.partObject : form.object,
    created: Math.floor(Date.now() / 1000),
    model,
  };
}

/** JSON has no minus infinity. */
const finite = (logProb: number) => Math.max(logProb, -9999);

/** A token whose bytes are no text by themselves has none that could be told. */
function chatToken({ text, logProb }: { text: string; logProb: number | null }) {
  const bytes = text.includes("\uFFFD") ? null : [...Buffer.from(text)];
  return { token: text, logprob: finite(logProb!), bytes };
}

/** Of the tokens of the message: the one that ends it is none of them. */
function chatScores(tokens: readonly ScoredToken[]) {
  const ofMessage = tokens.filter(({ ends }) => !ends);
  return {
    content: ofMessage.map((token) => ({ ...chatToken(token), top_logprobs: token.top.map(chatToken) })),
    refusal: null,
  };
}

export const chatForm: ReplyForm = {
  idPrefix: "chatcmpl",
  object: "chat.completion",
  partObject: "chat.completion.chunk",
  choice(index, scores) {
    const logprobs = (tokens: readonly ScoredToken[]) => (scores ? chatScores(tokens) : null);
    const part = (delta: object, tokens: readonly ScoredToken[]) => {
      return { index, delta, logprobs: logprobs(tokens), finish_reason: null };
    };
    return {
      opening: () => part({ role: "assistant", content: "", refusal: null }, []),
      piece: ({ text, tokens }) => part({ content: text }, tokens),
      closing: (finish) => ({ index, delta: {}, logprobs: null, finish_reason: finish }),
      whole: ({ text, tokens, finish }) => ({
        index,
        message: { role: "assistant", content: text, refusal: null },
        logprobs: logprobs(tokens),
        finish_reason: finish,
      }),
    };
  },
};

/**
 * Of all tokens, the one that ends a text too: programs that take the last one to be drawn count on as many as were asked for.
 *
 * @param from - characters of the answer before these tokens
 */
function completionScores(tokens: readonly ScoredToken[], from: number) {
  let offset = from;
  return {
    tokens: tokens.map(({ text }) => text),
    token_logprobs: tokens.map(({ logProb }) => (logProb === null ? null : finite(logProb))),
    top_logprobs: tokens.map(({ text, logProb, top }) => {
      if (logProb === null) return null;
      // The likeliest of several tokens that read alike comes first and stays.
      return Object.fromEntries([{ text, logProb }, ...top.toReversed()].map((one) => [one.text, finite(one.logProb)]));
    }),
    text_offset: tokens.map(({ length }) => {
      const own = offset;
      offset += length;
      return own;
    }),
  };
}

export const completionForm: ReplyForm = {
  idPrefix: "cmpl",
  object: "text_completion",
  partObject: "text_completion",
  choice(index, scores) {
    let written = 0;
    const part = ({ text, tokens }: Piece, finish: ChoiceEnd["finish"] | null) => {
      const logprobs = scores ? completionScores(tokens, written) : null;
      written += tokens.reduce((n, { length }) => n + length, 0);
      return { index, text, logprobs, finish_reason: finish };
    };
    return {
      opening: () => undefined,
      piece: (piece) => part(piece, null),
      closing: (finish) => ({ index, text: "", logprobs: null, finish_reason: finish }),
      whole: (answer) => part(answer, answer.finish),
    };
  },
};
