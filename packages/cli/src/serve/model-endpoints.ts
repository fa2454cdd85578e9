/** What an OpenAI-compatible server of one model answers. */
import { memory } from "@llmeff/tensor";
import { Admission } from "./admission.js";
import { answer } from "./answer.js";
import { parseChatRequest } from "./chat-request.js";
import { parseCompletionRequest } from "./completion-request.js";
import type { Endpoint } from "./http-service.js";
import { chatForm, completionForm } from "./replies.js";
import type { ServedModel } from "./served-model.js";

export interface EndpointOptions {
  /** Sequences at most, those that are written and those that wait; who asks for more is told to come back. */
  mostSequences: number;
  /**
   * Bytes of a request's body at most; default 32 for each token of the context, and at least 256 KiB. It takes long to divide a long prompt into tokens,
   * and one far longer than the context would be refused afterwards.
   */
  maxBodyBytes?: number | undefined;
}

export function modelEndpoints(
  model: ServedModel,
  { mostSequences, maxBodyBytes = Math.max(2 ** 18, 32 * model.contextLength) }: EndpointOptions,
): Readonly<Record<string, Endpoint>> {
  const admission = new Admission(mostSequences);
  const admit = (sequences: number) => admission.enter(sequences);
  const card = {
    id: model.name,
    object: "model",
    created: model.created,
    owned_by: "llmeff",
    // As other servers of local models tell it, and clients look for it.
    max_model_len: model.contextLength,
  };
  return {
    "/health": {
      method: "GET",
      open: true,
      async handle(exchange) {
        const { active, waiting } = model.batch;
        exchange.send(200, { status: "ok", active, waiting, live_bytes: memory().liveBytes });
      },
    },
    "/v1/models": {
      method: "GET",
      async handle(exchange) {
        exchange.send(200, { object: "list", data: [card] });
      },
    },
    [`/v1/models/${encodeURIComponent(model.name)}`]: {
      method: "GET",
      async handle(exchange) {
        exchange.send(200, card);
      },
    },
    "/v1/chat/completions": {
      method: "POST",
      async handle(exchange) {
        const request = parseChatRequest(await exchange.json(maxBodyBytes));
        model.requireName(request.model);
        const prompts = async (signal: AbortSignal) => [{ ids: await model.chatPrompt(request.messages, signal) }];
        const asked = { model, request, promptCount: 1, prompts, promptField: "messages", form: chatForm };
        await answer(asked, exchange, admit);
      },
    },
    "/v1/completions": {
      method: "POST",
      async handle(exchange) {
        const request = parseCompletionRequest(await exchange.json(maxBodyBytes));
        model.requireName(request.model);
        const prompts = (signal: AbortSignal) => model.prompts(request, signal);
        const promptCount = request.prompts.length;
        const asked = { model, request, promptCount, prompts, promptField: "prompt", form: completionForm };
        await answer(asked, exchange, admit);
      },
    },
  };
}
