/** The program of a tokenizer's thread. */
import { parentPort, workerData } from "node:worker_threads";
import { createTokenizer, type TokenizerSpec } from "@llmeff/data";
import { perform, type TokenizerTask } from "./tokenizer-task.js";

const tokenizer = createTokenizer(JSON.parse(workerData as string) as TokenizerSpec);
parentPort!.on("message", (task: TokenizerTask) => parentPort!.postMessage(perform(tokenizer, task)));
parentPort!.postMessage("ready");
