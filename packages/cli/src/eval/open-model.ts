/** Models by the words of the command line: an address, a checkpoint, or a stand-in. */
import { resolve } from "node:path";
import {
  type ConcurrencyOptions,
  type EvalModel,
  echoModel,
  type HttpModelOptions,
  httpModel,
  listModels,
  oracleModel,
  randomModel,
} from "@llmeff/longcontext";
import { localModel } from "@llmeff/longcontext/local";
import type { DeviceChoice } from "@llmeff/tensor";
import { UsageError } from "../errors.js";
import type { Io } from "../io.js";
import { loadChatTemplate } from "../run/chat-template.js";
import { loadModel } from "../run/load-model.js";
import { folderDigest } from "./folder-digest.js";

export interface ModelOptions {
  api?: "chat" | "completions";
  keyEnv?: string;
  header?: [name: string, value: string][];
  body?: Record<string, unknown>;
  /** False with `--no-stream`. */
  stream?: boolean;
  context?: number;
  /** Seconds to the first byte of a reply. */
  timeout?: number;
  /** Most requests at a time. */
  concurrency?: number;
  device?: DeviceChoice;
}

export interface OpenedModel {
  model: EvalModel;
  concurrency: ConcurrencyOptions;
  kind: "http" | "local" | "mock";
}

/** Requests at a time at the most, unless it is said: of an endpoint, which is asked fewer at first; and in the batch of a local model. */
const mostRequests = { endpoint: 64, local: 8 } as const;

const standIns = { oracle: oracleModel, echo: echoModel, random: randomModel } as const;

/**
 * `http://host/v1` (the one model that it serves), `http://host/v1#name`, `local:runs/name` (a checkpoint of ours), or `mock:oracle`,
 * `mock:echo`, `mock:random`.
 *
 * @throws {UsageError} if the words name no model
 */
export async function openModel(io: Io, words: string, options: ModelOptions): Promise<OpenedModel> {
  const { concurrency: max = mostRequests.endpoint } = options;
  const [, scheme = "", rest = ""] = /^(\w+):(.*)$/.exec(words) ?? [];
  if (scheme === "mock") {
    if (!(rest in standIns))
      throw new UsageError(`[eval] there is no mock "${rest}": ${Object.keys(standIns).join(", ")}.`);
    return { model: standIns[rest as keyof typeof standIns](), concurrency: { max }, kind: "mock" };
  }
  if (scheme === "local") return { ...(await openLocal(io, rest, options)), kind: "local" };
  if (scheme === "http" || scheme === "https") {
    return { model: await openEndpoint(io, words, options), concurrency: { max }, kind: "http" };
  }
  throw new UsageError(
    `[eval] expected a model as http://host/v1#name, local:FOLDER or mock:oracle; received "${words}".`,
  );
}

async function openEndpoint(io: Io, words: string, options: ModelOptions): Promise<EvalModel> {
  const [url = "", name = ""] = words.split("#", 2);
  const { api, header = [], body, stream, timeout, context } = options;
  const keyEnv = keyVariable(io, url, options.keyEnv);
  const access = {
    env: io.env,
    headers: Object.fromEntries(header),
    ...(keyEnv === undefined ? {} : { keyEnv }),
  };
  // Asked for also where the name is given: servers tell there how long the context is.
  const listed = name === "" || context === undefined ? await listModels(url, access).catch((error) => error) : [];
  if (name === "" && listed instanceof Error) throw listed;
  const models = Array.isArray(listed) ? listed : [];
  if (name === "" && models.length !== 1) {
    const names = models.map((model) => model.name).slice(0, 20);
    throw new UsageError(
      `[eval] ${url} serves ${models.length} models; name one as ${url}#NAME.${names.length > 0 ? ` They are: ${names.join(", ")}.` : ""}`,
    );
  }
  const chosen = name === "" ? models[0]! : models.find((model) => model.name === name);
  const contextWindow = context ?? chosen?.contextWindow;
  const settings: HttpModelOptions = {
    ...access,
    ...(api === undefined ? {} : { api }),
    ...(body === undefined ? {} : { body }),
    ...(stream === undefined ? {} : { stream }),
    ...(timeout === undefined ? {} : { timeouts: { firstByteMs: timeout * 1000 } }),
    ...(contextWindow === undefined ? {} : { contextWindow }),
  };
  return httpModel(url, name === "" ? models[0]!.name : name, settings);
}

/** A key goes only where it was meant for: OpenAI's to OpenAI, any other where it is named or put into LLMEFF_API_KEY. */
function keyVariable({ env }: Io, url: string, named: string | undefined): string | undefined {
  if (named !== undefined) return named;
  if (URL.canParse(url) && new URL(url).hostname === "api.openai.com") return "OPENAI_API_KEY";
  return env.LLMEFF_API_KEY ? "LLMEFF_API_KEY" : undefined;
}

async function openLocal(
  io: Io,
  path: string,
  { device, concurrency: batch = mostRequests.local }: ModelOptions,
): Promise<Omit<OpenedModel, "kind">> {
  const loaded = await loadModel(resolve(io.cwd, path), { device });
  try {
    const { model, params, tokenizer, checkpoint, stopTokens, source } = loaded;
    if (tokenizer === undefined) {
      throw new UsageError(
        `[eval] ${checkpoint} has no tokenizer: it was trained on a generated task, or lies without its tokenizer.json. It can't read prompts.`,
      );
    }
    const template = source === undefined ? undefined : await loadChatTemplate(checkpoint);
    const local = localModel(model, params, tokenizer, {
      ...{ id: path, tokenizerId: `local:${path}`, revision: await folderDigest(checkpoint), stopTokens, batch },
      chatTemplate: template && ((messages) => template.render(messages)),
    });
    const close = async () => {
      await local.close?.();
      loaded[Symbol.dispose]();
    };
    return { model: { ...local, close }, concurrency: { start: batch, max: batch } };
  } catch (error) {
    loaded[Symbol.dispose]();
    throw error;
  }
}
