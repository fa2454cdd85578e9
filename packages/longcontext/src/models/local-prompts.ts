/** Prompts of a model in this process as the tokens that it was trained to read. */
import type { Tokenizer as DataTokenizer } from "@llmeff/data";
import type { Message } from "../sample.js";
import type { Overhead } from "../tokens/budget.js";
import { type GenRequest, ModelError } from "./eval-model.js";
import { flatPrompt } from "./flat-prompt.js";

/** Writes a conversation up to where the answer begins, with all special tokens that belong to it. */
export type ChatTemplate = (messages: readonly Message[]) => string;

/** Takes the place of a text where what is around it is counted. */
const letter = "a";

export class LocalPrompts {
  /** Tokens that begin every text, such as `<s>`. */
  readonly begin: Int32Array;

  constructor(
    private readonly id: string,
    private readonly tokenizer: DataTokenizer,
    private readonly template: ChatTemplate | undefined,
  ) {
    this.begin = beginningOf(tokenizer);
  }

  /** @throws {ModelError} if the template refuses the messages */
  tokensOf({ messages, prompt }: GenRequest): Int32Array {
    if (prompt !== undefined || this.template === undefined) {
      return this.document(this.#encode(prompt ?? flatPrompt(messages ?? [])));
    }
    return this.#encode(this.#rendered(messages ?? []));
  }

  /** A text of these tokens, from its beginning on. */
  document(ids: Int32Array): Int32Array {
    if (this.begin.length === 0) return ids;
    const whole = new Int32Array(this.begin.length + ids.length);
    whole.set(this.begin);
    whole.set(ids, this.begin.length);
    return whole;
  }

  /** What template and begin token add to the contents. Where a text's tokens depend on its neighbours, one token a message more. */
  readonly overhead: Overhead = (messages) => {
    if (this.template === undefined && messages.length === 1) return this.begin.length;
    const standIns = messages.map(({ role }): Message => ({ role, content: letter }));
    const around = this.tokensOf({ messages: standIns, maxTokens: 0 }).length;
    const contents = messages.length * this.#encode(letter).length;
    return around - contents + messages.length;
  };

  /** Names the template in the keys of replies; undefined without one. */
  get identity(): string | undefined {
    return this.template && this.#rendered([{ role: "user", content: letter }]);
  }

  #encode(text: string): Int32Array {
    return this.tokenizer.encode(text, { addSpecialTokens: false });
  }

  #rendered(messages: readonly Message[]): string {
    try {
      return this.template!(messages);
    } catch (cause) {
      const told = (cause as Error).message;
      throw new ModelError("error", `[local] the chat template of ${this.id} refuses these messages: ${told}`, {
        cause,
      });
    }
  }
}

/** What a tokenizer puts before a text. What it puts behind one ends it, and has no place in a prompt. */
function beginningOf(tokenizer: DataTokenizer): Int32Array {
  if (tokenizer.encode("").length === 0) return new Int32Array(0);
  const whole = tokenizer.encode(letter);
  const plain = tokenizer.encode(letter, { addSpecialTokens: false });
  for (let at = 0; at + plain.length <= whole.length; at++) {
    if (plain.every((id, i) => id === whole[at + i])) return whole.slice(0, at);
  }
  return new Int32Array(0);
}
