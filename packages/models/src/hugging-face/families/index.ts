import type { Family } from "../family.js";
import { gpt2 } from "./gpt2.js";
import { gemma2, llama, mistral, mixtral, qwen2, qwen3 } from "./llama.js";

/** The families that can be read and written; of several that a model belongs to, it is written as the first. */
export const families: readonly Family[] = [llama, mistral, qwen2, qwen3, mixtral, gemma2, gpt2];
