/** The weights of a Hugging Face folder: one safetensors file, or several that an index names. */
import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  type DType,
  FormatError,
  IoError,
  openSafetensors,
  type SafetensorsOptions,
  type SafetensorsReader,
  type Shape,
  type Tensor,
} from "@llmeff/tensor";
import { isObject, type JsonObject } from "./json-fields.js";

export const weightsFile = "model.safetensors";
export const indexFile = "model.safetensors.index.json";

/** Parses a JSON object of a folder. @throws {IoError} {@link FormatError} */
export async function readJson(path: string): Promise<JsonObject> {
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new IoError(`[loadHuggingFace] ${path} can't be read: ${cause.message}.`, { cause });
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`[loadHuggingFace] ${path} is not JSON: ${(cause as Error).message}.`, { cause });
  }
  if (!isObject(json)) throw new FormatError(`[loadHuggingFace] ${path} must hold a JSON object.`);
  return json;
}

/** `readJson` of a file that a folder may do without. */
export async function readJsonIfThere(path: string): Promise<JsonObject | undefined> {
  return (await exists(path)) ? readJson(path) : undefined;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** The file of each tensor by an index. Names that lead out of the folder are refused. */
function parseIndex(path: string, json: JsonObject): Map<string, string> {
  const { weight_map: map } = json;
  if (!isObject(map)) throw new FormatError(`[loadHuggingFace] ${path} must have a weight_map of names to files.`);
  for (const [name, file] of Object.entries(map)) {
    if (typeof file === "string" && file !== "" && basename(file) === file && !file.includes("\\")) continue;
    throw new FormatError(
      `[loadHuggingFace] ${path}: the file of ${JSON.stringify(name)} must be one beside the index; received ${JSON.stringify(file)}.`,
    );
  }
  return new Map(Object.entries(map as Record<string, string>));
}

/** All tensors of a folder, wherever they lie. */
export class CheckpointFiles implements AsyncDisposable {
  private constructor(
    private readonly files: readonly SafetensorsReader[],
    private readonly places: ReadonlyMap<string, SafetensorsReader>,
  ) {}

  /**
   * @throws {IoError} if there are no weights, or a file is missing or can't be read
   * @throws {FormatError} if a file is damaged, or the index says something else than the files
   */
  static async open(folder: string): Promise<CheckpointFiles> {
    const index = join(folder, indexFile);
    if (!(await exists(index))) return CheckpointFiles.#openSingle(folder);
    const map = parseIndex(index, await readJson(index));
    const files = new Map<string, SafetensorsReader>();
    try {
      for (const name of new Set(map.values())) files.set(name, await openSafetensors(join(folder, name)));
      checkIndex(index, map, files);
      const places = [...map].map(([tensor, file]) => [tensor, files.get(file)!] as const);
      return new CheckpointFiles([...files.values()], new Map(places));
    } catch (error) {
      for (const file of files.values()) await file.close();
      throw error;
    }
  }

  static async #openSingle(folder: string): Promise<CheckpointFiles> {
    const path = join(folder, weightsFile);
    if (!(await exists(path))) {
      throw new IoError(
        `[loadHuggingFace] ${folder} has neither ${weightsFile} nor ${indexFile}. Weights in other formats (pytorch_model.bin) must be converted to safetensors first.`,
      );
    }
    const file = await openSafetensors(path);
    return new CheckpointFiles([file], new Map([...file.entries.keys()].map((name) => [name, file])));
  }

  get names(): string[] {
    return [...this.places.keys()];
  }

  shapeOf(name: string): Shape | undefined {
    return this.places.get(name)?.entries.get(name)?.shape;
  }

  /** Of a tensor that is there. */
  dtypeOf(name: string): DType {
    return this.places.get(name)!.entries.get(name)!.dtype;
  }

  /** A tensor that is there; it belongs to no scope. */
  read(name: string, options: SafetensorsOptions): Promise<Tensor> {
    return this.places.get(name)!.read(name, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.files) await file.close();
  }
}

function checkIndex(index: string, map: Map<string, string>, files: Map<string, SafetensorsReader>): void {
  const absent = [...map].filter(([tensor, file]) => !files.get(file)!.entries.has(tensor));
  const unlisted = [...files].flatMap(([file, { entries }]) =>
    [...entries.keys()].filter((tensor) => map.get(tensor) !== file).map((tensor) => [tensor, file] as const),
  );
  if (absent.length + unlisted.length === 0) return;
  const list = (places: readonly (readonly [string, string])[]) =>
    places.map(([tensor, file]) => `"${tensor}" (${file})`).join(", ");
  const problems = [
    ...(absent.length > 0 ? [`it names tensors that their files lack: ${list(absent)}`] : []),
    ...(unlisted.length > 0 ? [`it doesn't name tensors of its files: ${list(unlisted)}`] : []),
  ];
  throw new FormatError(`[loadHuggingFace] ${index} is not the index of its files: ${problems.join("; ")}.`);
}
