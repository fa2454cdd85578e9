/** Small models behind a server of this process, and the client that people use. */
import { rmSync } from "node:fs";
import { readFile, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { byteTokenizer, loadLlama2cTokenizer, tokenizerJson } from "@llmeff/data";
import { loadLlama2c, saveHuggingFace, Transformer } from "@llmeff/models";
import { OpenAI } from "openai";
import { bundleProgram } from "../../../test/bundle.js";
import { HttpService, type HttpServiceOptions } from "../src/serve/http-service.js";
import { type EndpointOptions, modelEndpoints } from "../src/serve/model-endpoints.js";
import { ServedModel, type ServedModelOptions } from "../src/serve/served-model.js";
import { Workplace } from "./harness.js";

export const root = join(import.meta.dirname, "../../..");
const stories = join(root, "datasets/stories260K");

/** Writes stories260K as a Hugging Face folder: 512 tokens of context, texts that end. */
export async function makeStories(folder: string): Promise<void> {
  const { model, params } = await loadLlama2c(join(stories, "stories260K.bin"), { device: "cpu" });
  const tokenizer = await loadLlama2cTokenizer(join(stories, "tok512.bin"));
  const files = { "tokenizer.json": JSON.stringify(tokenizerJson(tokenizer)) };
  await saveHuggingFace(folder, model, params, { files });
  for (const param of Object.values(params)) param.dispose();
  model.dispose();
}

export async function storiesText(): Promise<string> {
  return (JSON.parse(await readFile(join(stories, "golden.json"), "utf8")) as { greedy_text: string }).greedy_text;
}

/** Writes a model of random bytes, whose answers end at the limit alone. */
async function makeEndless(folder: string): Promise<void> {
  const model = new Transformer({ vocabSize: 256, dModel: 16, numLayers: 2, numHeads: 2, maxSeqLen: 200_000 });
  const params = model.init(1);
  const files = { "tokenizer.json": JSON.stringify(tokenizerJson(byteTokenizer())) };
  await saveHuggingFace(folder, model, params, { files });
  for (const param of Object.values(params)) param.dispose();
  model.dispose();
}

/** A folder with both. */
export async function makePlace(): Promise<Workplace> {
  const place = await Workplace.create();
  await makeStories(place.path("stories"));
  await makeEndless(place.path("endless"));
  return place;
}

export class Served implements AsyncDisposable {
  private constructor(
    readonly model: ServedModel,
    readonly service: HttpService,
    /** Failures that the server tells its operator. */
    readonly failures: Error[],
  ) {}

  /** A text in tokens, as a prompt is. */
  async tokens(text: string): Promise<number[]> {
    const [prompt] = await this.model.prompts({ prompts: [text], echo: false });
    return Array.from(prompt!.ids);
  }

  static async start(
    folder: string,
    options: ServedModelOptions & HttpServiceOptions & Partial<EndpointOptions> = {},
  ): Promise<Served> {
    const { mostSequences = 256, maxBodyBytes, ...rest } = options;
    const failures: Error[] = [];
    const onFailure = (error: Error) => failures.push(error);
    const tokenizerProgram = await tokenizerWorker();
    const model = await ServedModel.open(folder, { device: "cpu", tokenizerProgram, onFailure, ...rest });
    const endpoints = modelEndpoints(model, { mostSequences, maxBodyBytes });
    return new Served(model, await HttpService.listen(endpoints, { port: 0, onFailure, ...rest }), failures);
  }

  get url(): string {
    return `${this.service.url}/v1`;
  }

  /** A client that asks once: what fails is to be seen. */
  get client(): OpenAI {
    return new OpenAI({ baseURL: this.url, apiKey: "none", maxRetries: 0 });
  }

  /** Asks without the client, which would correct some mistakes. */
  fetch(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    return fetch(`${this.url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.service.close();
    await this.model[Symbol.asyncDispose]();
  }
}

/** Puts the program of the tokenizer's thread into a folder, under the name that it has in the package. */
export async function bundleTokenizerWorker(folder: string): Promise<URL> {
  const bundled = await bundleProgram(new URL("../src/serve/tokenizer-worker.ts", import.meta.url), folder);
  const path = join(folder, "tokenizer-worker.js");
  await rename(bundled, path);
  await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  return pathToFileURL(path);
}

let worker: Promise<URL> | undefined;

/** One for all servers of a file's tests. */
function tokenizerWorker(): Promise<URL> {
  const folder = join(tmpdir(), `llmeff-tokenizer-${process.pid}`);
  worker ??= bundleTokenizerWorker(folder).finally(() => {
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  });
  return worker;
}

/** Waits for what will come sooner or later; the test's own time limit says when it is too late. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
