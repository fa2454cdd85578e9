/**
 * How a checkpoint wants conversations written: a Jinja template, in `chat_template.jinja` or in the `chat_template` of
 * `tokenizer_config.json`.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { FormatError, IoError } from "@llmeff/native/errors";
import { isObject } from "../config/merge.js";

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
  name?: string;
}

export interface ChatTemplate {
  /**
   * The prompt of a conversation, with all special tokens that belong to it.
   *
   * @throws {Error} of the template's own, if it refuses the conversation (roles that don't alternate)
   */
  render(messages: readonly ChatMessage[]): string;
}

/** A file's text, or undefined where there is none. */
async function textOf(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return undefined;
    throw new IoError(`[llmeff] ${path} can't be read: ${cause.message}.`, { cause });
  });
}

/**
 * The template of a Hugging Face folder; undefined where it has none.
 *
 * @throws {FormatError} if it is there and can't be used
 */
export async function loadChatTemplate(folder: string): Promise<ChatTemplate | undefined> {
  const configPath = join(folder, "tokenizer_config.json");
  const templatePath = join(folder, "chat_template.jinja");
  const [own, configText] = await Promise.all([textOf(templatePath), textOf(configPath)]);
  const config = configText === undefined ? {} : parseConfig(configPath, configText);
  const source = own ?? templateIn(configPath, config.chat_template);
  if (source === undefined) return undefined;
  const tokens = Object.fromEntries(
    Object.entries(config).flatMap(([name, value]) => {
      const token = /^\w+_token$/.test(name) ? contentOf(value) : undefined;
      return token === undefined ? [] : [[name, token]];
    }),
  );
  return chatTemplate(own === undefined ? configPath : templatePath, source, tokens);
}

function chatTemplate(path: string, source: string, tokens: Readonly<Record<string, string>>): ChatTemplate {
  let template: Template;
  try {
    template = new Template(source);
  } catch (cause) {
    throw new FormatError(`[llmeff] the chat template of ${path} can't be used: ${(cause as Error).message}`, {
      cause,
    });
  }
  return { render: (messages) => template.render({ ...tokens, messages, add_generation_prompt: true }) };
}

function parseConfig(path: string, text: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`[llmeff] ${path} is not JSON: ${(cause as Error).message}.`, { cause });
  }
  if (isObject(json)) return json;
  throw new FormatError(`[llmeff] ${path} must hold a JSON object.`);
}

/** One template, or the one named "default" of a list of them. */
function templateIn(path: string, value: unknown): string | undefined {
  if (value === undefined || value === null || typeof value === "string") return value ?? undefined;
  const listed = Array.isArray(value) ? value.find((one) => isObject(one) && one.name === "default") : undefined;
  if (isObject(listed) && typeof listed.template === "string") return listed.template;
  throw new FormatError(`[llmeff] ${path}: chat_template must be a text, or a list with a template named "default".`);
}

/** A special token, written as a text or as an object. */
function contentOf(token: unknown): string | undefined {
  const content = isObject(token) ? token.content : token;
  return typeof content === "string" ? content : undefined;
}
