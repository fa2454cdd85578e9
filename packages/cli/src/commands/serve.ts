/** `llmeff serve MODEL` */
import { resolve } from "node:path";
import type { DeviceChoice } from "@llmeff/tensor";
import { UsageError } from "../errors.js";
import { interruptible } from "../interrupt.js";
import { type Io, note, print } from "../io.js";
import { HttpService } from "../serve/http-service.js";
import { modelEndpoints } from "../serve/model-endpoints.js";
import { ServedModel } from "../serve/served-model.js";

export interface ServeCommandOptions {
  host: string;
  port: number;
  name?: string;
  device?: DeviceChoice;
  maxSequences: number;
  maxQueue: number;
  maxContext?: number;
  maxBody?: number;
  timeout: number;
  stall: number;
  grace: number;
  keyEnv?: string;
  cors?: string;
}

/** Answers requests until it is interrupted. */
export async function serveCommand(io: Io, path: string, options: ServeCommandOptions): Promise<void> {
  const { host, port, cors: corsOrigin, grace, maxSequences, maxQueue } = options;
  const key = keyOf(io, options.keyEnv);
  const onFailure = (error: Error) => note(io, error.stack ?? error.message);
  await using model = await ServedModel.open(resolve(io.cwd, path), { ...options, onFailure });
  const endpoints = modelEndpoints(model, { mostSequences: maxSequences + maxQueue, maxBodyBytes: options.maxBody });
  await using service = await HttpService.listen(endpoints, {
    ...{ host, port, key, corsOrigin, onFailure },
    ...{ timeoutSeconds: options.timeout, stallSeconds: options.stall },
  });
  const chat = model.hasChatTemplate ? "its own chat template" : "no chat template: User: … Assistant: …";
  print(io, `serving ${model.name} at ${service.url}/v1 (${model.contextLength} tokens of context, ${chat})`);
  if (key === undefined && !isLoopback(host)) {
    note(io, `[serve] ${host} can be reached from other machines, and no key is needed. LLMEFF_API_KEY asks for one.`);
  }
  await interruptible(io, (signal) => aborted(signal), "ending: no further requests are taken");
  await service.close(grace);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function keyOf({ env }: Io, named: string | undefined): string | undefined {
  const key = env[named ?? "LLMEFF_API_KEY"];
  if (named !== undefined && !key) throw new UsageError(`[serve] the environment variable ${named} holds no key.`);
  return key || undefined;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}
