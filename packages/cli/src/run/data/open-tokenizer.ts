/** The tokenizer that a config or a command line names. */
import { resolve } from "node:path";
import { byteTokenizer, characterTokenizer, loadHuggingFaceTokenizer, type Tokenizer } from "@llmeff/data";

/**
 * @param name - `"character"`, `"byte"`, or the path of a `tokenizer.json`
 * @param folder - that the path is relative to
 * @param texts - whose characters a tokenizer of characters has; not read for another
 */
export async function openTokenizer(
  name: string,
  folder: string,
  texts: () => Promise<Iterable<string>>,
): Promise<Tokenizer> {
  if (name === "character") return characterTokenizer(await texts());
  if (name === "byte") return byteTokenizer();
  return loadHuggingFaceTokenizer(resolve(folder, name));
}
