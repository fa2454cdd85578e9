/** Small models behind a server of this process, and the client that people use. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { byteTokenizer, loadLlama2cTokenizer, tokenizerJson } from "@llmeff/data";
import { loadLlama2c, saveHuggingFace, Transformer } from "@llmeff/models";
import { OpenAI } from "openai";
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

  static async start(
    folder: string,
    options: ServedModelOptions & HttpServiceOptions & Partial<EndpointOptions> = {},
  ): Promise<Served> {
    const { mostSequences = 256, maxBodyBytes, ...rest } = options;
    const failures: Error[] = [];
    const model = await ServedModel.open(folder, { device: "cpu", ...rest });
    const endpoints = modelEndpoints(model, { mostSequences, maxBodyBytes });
    const onFailure = (error: Error) => failures.push(error);
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

/** Waits for what will come sooner or later; the test's own time limit says when it is too late. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
