/** Hugging Face folders out and in again: every family, every dtype, in shards; and what is refused. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cp, mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type DType, loadSafetensors, memory, saveSafetensors, scope, type Tensor, tensor } from "@llmeff/tensor";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../../test/garbage.js";
import {
  CheckpointError,
  loadHuggingFace,
  saveHuggingFace,
  Transformer,
  type TransformerConfig,
} from "../src/index.js";
import { PlainTransformer } from "./plain-transformer.js";
import { temporaryFolder } from "./temporary-folder.js";

const golden = join(import.meta.dirname, "../../../golden");
const readJson = (...path: string[]) => JSON.parse(readFileSync(join(...path), "utf8"));

const base: TransformerConfig = {
  vocabSize: 13,
  dModel: 16,
  numLayers: 3,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 6,
  maxSeqLen: 24,
  ffnDim: 20,
};
const windows = (...pattern: (number | undefined)[]) =>
  pattern.map((window) => ({ kind: "dot" as const, ...(window === undefined ? {} : { window }) }));

/** A model of each family, with what sets it apart. */
const models: Record<string, TransformerConfig> = {
  llama: {
    ...base,
    attentionBias: "all",
    feedForwardBias: true,
    rotaryDim: 4,
    ropeScaling: { type: "llama3", factor: 8, originalLength: 16, lowFrequencyFactor: 1, highFrequencyFactor: 4 },
  },
  mistral: { ...base, attention: windows(7), ropeScaling: { type: "linear", factor: 2 } },
  qwen2: { ...base, attentionBias: "qkv", attention: windows(undefined, 5, 5), tieEmbeddings: true },
  qwen3: {
    ...base,
    qkNorm: true,
    normEps: 1e-6,
    ropeBase: 1e6,
    maxSeqLen: 64,
    ropeScaling: { type: "yarn", factor: 4, originalLength: 16, betaFast: 16, truncate: false },
  },
  mixtral: { ...base, experts: { numExperts: 3, topK: 2, auxCoef: 0.5 } },
  gemma2: {
    ...base,
    block: "sandwich",
    normPlusOne: true,
    feedForward: "geglu",
    embeddingScale: 4,
    attentionScale: 12 ** -0.5,
    attentionSoftcap: 50,
    finalSoftcap: 30,
    attention: windows(4, undefined, 4),
    tieEmbeddings: true,
  },
  gpt2: {
    ...base,
    headDim: 4,
    numKvHeads: 4,
    norm: "layer",
    positions: "learned",
    feedForward: "gelu",
    feedForwardBias: true,
    attentionBias: "all",
    tieEmbeddings: true,
  },
};

function bits(params: Record<string, Tensor>): Record<string, string> {
  const entries = Object.entries(params).map(([name, x]) => {
    const data = x.dataSync();
    const hex = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("hex");
    return [name, `${x.dtype} [${x.shape}] ${hex}`] as const;
  });
  return Object.fromEntries(entries);
}

const ids = (n: number) =>
  tensor(
    Int32Array.from({ length: n }, (_, i) => (i * 7 + ((i * i) % 5)) % 13),
    { shape: [1, n] },
  );

describe.each(Object.entries(models))("%s", (family, config) => {
  const model = new Transformer(config);

  it.each([
    ["float32", "old", 5e9],
    ["bfloat16", "new", 2000],
    ["float16", "old", 1],
  ] as const)(
    "comes back bit for bit: %s, %s configuration, shards of %i bytes",
    async (dtype, configForm, maxShardBytes) => {
      const folder = join(temporaryFolder(), "model");
      const params = model.init(3, { dtype });
      await saveHuggingFace(folder, model, params, { configForm, maxShardBytes });
      const loaded = await loadHuggingFace(folder);
      expect(loaded.source.model_type).toBe(family);
      expect(loaded.model.config).toEqual(model.config);
      expect(bits(loaded.params)).toEqual(bits(params));

      const again = join(temporaryFolder(), "again");
      await saveHuggingFace(again, loaded.model, loaded.params, { configForm, maxShardBytes, source: loaded.source });
      for (const file of readdirSync(folder).filter((name) => name !== "config.json"))
        expect(readFileSync(join(again, file)), file).toEqual(readFileSync(join(folder, file)));
      expect(readJson(again, "config.json")).toEqual(readJson(folder, "config.json"));
    },
  );

  it("scores as it did", async () => {
    const folder = join(temporaryFolder(), "model");
    const params = model.init(3, { dtype: "float64" });
    await saveHuggingFace(folder, model, params);
    const loaded = await loadHuggingFace(folder);
    const logits = (m: Transformer, p: Record<string, Tensor>) => scope(() => [...m.logits(p, ids(9)).dataSync()]);
    expect(logits(loaded.model, loaded.params)).toEqual(logits(model, params));
    if (config.experts === undefined) {
      const plain = new PlainTransformer(model.config, params).logits([...ids(9).dataSync()]).flat();
      for (const [i, z] of logits(loaded.model, loaded.params).entries())
        expect(Math.abs(z - plain[i]!)).toBeLessThan(1e-11);
    }
  });
});

describe("loadHuggingFace", () => {
  it("reads configurations of transformers 4 and 5 alike", async () => {
    const folder = temporaryFolder();
    await cp(join(golden, "tiny-llama", "model.safetensors"), join(folder, "model.safetensors"));
    await cp(join(golden, "tiny-llama", "config.v4.json"), join(folder, "config.json"));
    const [old, current] = [await loadHuggingFace(folder), await loadHuggingFace(join(golden, "tiny-llama"))];
    expect(old.model.config).toEqual(current.model.config);
    expect([current.bosToken, current.eosTokens]).toEqual([1, [2]]);
  });

  it("takes several end tokens, tensors of old versions, and the bare names of GPT-2", async () => {
    const folder = temporaryFolder();
    const { tensors } = await loadSafetensors(join(golden, "tiny-gpt2", "model.safetensors"));
    const bare = Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name.replace("transformer.", ""), x]));
    const buffers = {
      "h.0.attn.bias": tensor(Uint8Array.of(1), { shape: [1, 1] }),
      "h.0.attn.masked_bias": tensor([-1e4]),
    };
    await saveSafetensors(join(folder, "model.safetensors"), { ...bare, ...buffers });
    await writeFile(
      join(folder, "config.json"),
      JSON.stringify({ ...readJson(golden, "tiny-gpt2", "config.json"), eos_token_id: [0, 5] }),
    );
    const loaded = await loadHuggingFace(folder);
    expect(loaded.eosTokens).toEqual([0, 5]);
    expect(bits(loaded.params)).toEqual(bits((await loadHuggingFace(join(golden, "tiny-gpt2"))).params));
  });

  it("reads past buffers of int64, and tells weights that are none", async () => {
    const folder = join(temporaryFolder(), "model");
    await cp(join(golden, "tiny-llama"), folder, { recursive: true });
    const path = join(folder, "model.safetensors");
    const own = await readFile(path);
    const length = Number(own.readBigUInt64LE(0));
    const header = JSON.parse(own.toString("utf8", 8, 8 + length));
    const end = own.length - 8 - length;
    const write = async (json: object, extra: number) => {
      const bytes = Buffer.from(JSON.stringify(json));
      const prefix = Buffer.alloc(8);
      prefix.writeBigUInt64LE(BigInt(bytes.length));
      await writeFile(path, Buffer.concat([prefix, bytes, own.subarray(8 + length), Buffer.alloc(extra)]));
    };
    const buffer = { dtype: "I64", shape: [1, 4], data_offsets: [end, end + 32] };
    await write({ ...header, "model.position_ids": buffer }, 32);
    expect(bits((await loadHuggingFace(folder)).params)).toEqual(
      bits((await loadHuggingFace(join(golden, "tiny-llama"))).params),
    );
    await write({ ...header, "model.extra": { ...buffer, dtype: "I8", shape: [32] } }, 32);
    await expect(loadHuggingFace(folder)).rejects.toThrow(/model has no "model.extra"/);
    const { "model.norm.weight": norm, ...rest } = header;
    expect(norm).toMatchObject({ dtype: "F32", shape: [32] });
    await write({ ...rest, "model.norm.weight": { ...norm, dtype: "F8_E4M3", shape: [128] } }, 0);
    await expect(loadHuggingFace(folder)).rejects.toThrow(/"model.norm.weight" is in the file with shape \[128\]/);
    const halves = { dtype: "I16", shape: [32] };
    const [from] = norm.data_offsets;
    const packed = { ...halves, data_offsets: [from, from + 64] };
    const filler = { dtype: "I64", shape: [8], data_offsets: [from + 64, from + 128] };
    await write({ ...rest, "model.norm.weight": packed, filler }, 0);
    await expect(loadHuggingFace(folder)).rejects.toThrow(
      /1 tensors are of no dtype of whole weights: "model.norm.weight" \(int16\)/,
    );
  });

  it("ends texts at the tokens of generation_config.json too", async () => {
    const folder = temporaryFolder();
    await cp(join(golden, "tiny-llama"), folder, { recursive: true });
    const path = join(folder, "generation_config.json");
    await writeFile(path, JSON.stringify({ eos_token_id: [7, 2, 1e6] }));
    expect((await loadHuggingFace(folder)).eosTokens).toEqual([2, 7]);
    await writeFile(path, JSON.stringify({ temperature: 0.6 }));
    expect((await loadHuggingFace(folder)).eosTokens).toEqual([2]);
    await writeFile(path, JSON.stringify({ eos_token_id: "</s>" }));
    await expect(loadHuggingFace(folder)).rejects.toThrow(/generation_config\.json: eos_token_id must be a token id/);
    await writeFile(path, "{");
    await expect(loadHuggingFace(folder)).rejects.toThrow(/generation_config\.json is not JSON/);
  });

  it("prepares as many positions as the scaling reaches, or as are asked for", async () => {
    const folder = join(temporaryFolder(), "model");
    const model = new Transformer({
      ...base,
      maxSeqLen: 48,
      ropeScaling: { type: "dynamic", factor: 3, originalLength: 16 },
    });
    await saveHuggingFace(folder, model, model.init(1));
    expect(readJson(folder, "config.json").max_position_embeddings).toBe(16);
    expect((await loadHuggingFace(folder)).model.config.maxSeqLen).toBe(48);
    expect((await loadHuggingFace(folder, { maxSeqLen: 100 })).model.config.maxSeqLen).toBe(100);
  });

  it("computes in the dtype that holds all tensors of a file, and refuses integers", async () => {
    const folder = temporaryFolder();
    await cp(join(golden, "tiny-llama", "config.json"), join(folder, "config.json"));
    const { tensors } = await loadSafetensors(join(golden, "tiny-llama", "model.safetensors"));
    const saveAs = (dtypeOf: (name: string) => DType) =>
      saveSafetensors(
        join(folder, "model.safetensors"),
        Object.fromEntries(Object.entries(tensors).map(([name, x]) => [name, x.astype(dtypeOf(name))])),
      );
    await saveAs((name) => (name.includes("norm") ? "float32" : "bfloat16"));
    const mixed = await loadHuggingFace(folder);
    const { params: narrow } = await loadHuggingFace(folder, { dtype: "bfloat16" });
    for (const [name, x] of Object.entries(mixed.params)) {
      expect(x.dtype).toBe("float32");
      if (!name.includes("norm")) expect(x.dataSync(), name).toEqual(narrow[name]!.astype("float32").dataSync());
    }
    expect(mixed.model.logits(mixed.params, ids(5)).dtype).toBe("float32");
    await saveAs((name) => (name.includes("q_proj") ? "uint8" : "float32"));
    for (const options of [{}, { dtype: "float32" as const }])
      await expect(loadHuggingFace(folder, options)).rejects.toThrow(
        /2 tensors are of no dtype of whole weights: "model.layers.0.self_attn.q_proj.weight" \(uint8\), .*quantiz/i,
      );
  });

  it("takes Mistral's window where the field is absent, and none where it is null", async () => {
    const folder = join(temporaryFolder(), "model");
    const model = new Transformer({ ...base, attention: windows(7) });
    await saveHuggingFace(folder, model, model.init(1));
    const windowWith = async (edited: object) => {
      await change(folder, "config.json", JSON.stringify(edited));
      return (await loadHuggingFace(folder)).model.config.layers[0];
    };
    const { sliding_window, ...absent } = readJson(folder, "config.json");
    expect(sliding_window).toBe(7);
    expect(await windowWith(absent)).toMatchObject({ window: 4096 });
    expect(await windowWith({ ...absent, sliding_window: null })).not.toHaveProperty("window");
  });

  it("converts to another dtype on the way", async () => {
    const { params } = await loadHuggingFace(join(golden, "tiny-qwen3"), { dtype: "bfloat16" });
    expect(new Set(Object.values(params).map(({ dtype }) => dtype))).toEqual(new Set(["bfloat16"]));
  });

  it("names every tensor that is missing, unexpected or misshapen, and reads none of them", async () => {
    const folder = temporaryFolder();
    await cp(join(golden, "tiny-llama", "config.json"), join(folder, "config.json"));
    const { tensors } = await loadSafetensors(join(golden, "tiny-llama", "model.safetensors"));
    const { "model.norm.weight": _, "model.layers.1.mlp.up_proj.weight": __, ...rest } = tensors;
    const wrong = { ...rest, "lm_head.weight": tensor([[1, 2]]), "model.extra": tensor([1]), other: tensor([1]) };
    await saveSafetensors(join(folder, "model.safetensors"), wrong);
    await collectGarbage();
    const before = memory().tensors;
    const error = await loadHuggingFace(folder).then(
      () => expect.fail("was accepted"),
      (caught: unknown) => caught as CheckpointError,
    );
    expect(memory().tensors).toBe(before);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.code).toBe("ERR_CHECKPOINT");
    expect(error.missing).toEqual(["model.layers.1.mlp.up_proj.weight", "model.norm.weight"]);
    expect(error.unexpected).toEqual(["model.extra", "other"]);
    expect(error.misshapen).toEqual([{ name: "lm_head.weight", expected: [320, 32], received: [1, 2] }]);
    for (const name of [...error.missing, ...error.unexpected, "lm_head.weight"])
      expect(error.message).toContain(`"${name}"`);
    expect(error.message).toContain("[1, 2]");
    expect(error.message).toContain("[320, 32]");
  });

  const damaged: [what: string, change: (folder: string) => Promise<void>, message: RegExp][] = [
    [
      "a folder without weights",
      (folder) => change(folder, "model-00001-of-00002.safetensors", null),
      /model-00001.*can't be read/,
    ],
    [
      "a shard cut short",
      (folder) => truncate(join(folder, "model-00002-of-00002.safetensors"), 600),
      /truncated|ended|outside/,
    ],
    [
      "an index that names a tensor in the wrong file",
      (folder) => editIndex(folder, (map) => ({ ...map, "model.norm.weight": "model-00001-of-00002.safetensors" })),
      /"model.norm.weight" \(model-00001-of-00002.safetensors\)/,
    ],
    [
      "an index that leaves a tensor out",
      (folder) => editIndex(folder, ({ "model.norm.weight": _, ...map }) => map),
      /doesn't name tensors of its files: "model.norm.weight"/,
    ],
    [
      "an index that leads out of the folder",
      (folder) => editIndex(folder, (map) => ({ ...map, "model.norm.weight": "../secret.safetensors" })),
      /must be one beside the index; received "\.\.\/secret.safetensors"/,
    ],
    [
      "an index without a map",
      (folder) => change(folder, "model.safetensors.index.json", "{}"),
      /must have a weight_map/,
    ],
    ["a configuration that is no JSON", (folder) => change(folder, "config.json", "{"), /config.json is not JSON/],
    ["a configuration that is a list", (folder) => change(folder, "config.json", "[]"), /must hold a JSON object/],
    [
      "an unknown architecture",
      (folder) => editConfig(folder, { model_type: "rwkv" }),
      /"rwkv" is none of the architectures/,
    ],
    [
      "an unknown activation",
      (folder) => editConfig(folder, { hidden_act: "tanh" }),
      /hidden_act must be one of silu,.*"tanh"/,
    ],
    [
      "an unknown rotary scaling",
      (folder) => editConfig(folder, { rope_parameters: { rope_theta: 1e4, rope_type: "longrope", factor: 2 } }),
      /rope_type must be one of default, linear, dynamic, yarn, llama3; received "longrope"/,
    ],
    [
      "an unknown rotary scaling of the old form",
      (folder) => editConfig(folder, { rope_parameters: null, rope_scaling: { type: "su", factor: 2 } }),
      /received "su"/,
    ],
    [
      "rotary positions by kind of layer",
      (folder) => editConfig(folder, { rope_parameters: { full_attention: {}, sliding_attention: {} } }),
      /differ by kind of layer/,
    ],
    [
      "a size that is no number",
      (folder) => editConfig(folder, { hidden_size: "32" }),
      /hidden_size must be a positive integer; received "32"/,
    ],
    [
      "more layers than there are",
      (folder) => editConfig(folder, { num_hidden_layers: 1e12 }),
      /num_hidden_layers must be at most 65536; received 1000000000000/,
    ],
    [
      "a size that is absent",
      (folder) => editConfig(folder, { vocab_size: null }),
      /vocab_size must be a positive integer; it is absent/,
    ],
    [
      "heads that don't divide",
      (folder) => editConfig(folder, { num_key_value_heads: 3 }),
      /numHeads must be a multiple.*4 and 3/,
    ],
    [
      "another size than the weights'",
      (folder) => editConfig(folder, { intermediate_size: 65 }),
      /\[64, 32\] but the model has \[65, 32\]/,
    ],
  ];
  it.each(damaged)("refuses %s", async (_what, damage, message) => {
    const folder = join(temporaryFolder(), "model");
    const { model, params, source } = await loadHuggingFace(join(golden, "tiny-llama"));
    await saveHuggingFace(folder, model, params, { source, configForm: "new", maxShardBytes: 100_000 });
    await damage(folder);
    await expect(loadHuggingFace(folder)).rejects.toThrow(message);
  });

  it("refuses weights of another format by name, and dtypes that can't compute", async () => {
    const folder = temporaryFolder();
    await cp(join(golden, "tiny-llama", "config.json"), join(folder, "config.json"));
    await expect(loadHuggingFace(folder)).rejects.toThrow(/has neither model.safetensors nor .*pytorch_model.bin/);
    await expect(loadHuggingFace(folder, { dtype: "int32" })).rejects.toThrow(
      /dtype must be a floating-point one; received int32/,
    );
    await expect(loadHuggingFace(join(folder, "absent"))).rejects.toThrow(/config.json can't be read/);
  });
});

async function change(folder: string, name: string, content: string | null): Promise<void> {
  const { rm } = await import("node:fs/promises");
  if (content === null) await rm(join(folder, name));
  else await writeFile(join(folder, name), content);
}

async function editConfig(folder: string, changes: object): Promise<void> {
  await change(folder, "config.json", JSON.stringify({ ...readJson(folder, "config.json"), ...changes }));
}

async function editIndex(folder: string, edit: (map: Record<string, string>) => Record<string, string>): Promise<void> {
  const index = readJson(folder, "model.safetensors.index.json");
  await change(
    folder,
    "model.safetensors.index.json",
    JSON.stringify({ ...index, weight_map: edit(index.weight_map) }),
  );
}

describe("saveHuggingFace", () => {
  const model = new Transformer(base);
  const params = model.init(1);

  it("keeps no kinds of layers of a source whose family doesn't state them", async () => {
    const folder = join(temporaryFolder(), "model");
    const windowed = new Transformer({ ...base, attention: windows(7) });
    const source = { model_type: "mistral", layer_types: Array(3).fill("full_attention") };
    await saveHuggingFace(folder, windowed, windowed.init(1), { source });
    expect((await loadHuggingFace(folder)).model.config).toEqual(windowed.config);
  });

  it("refuses files in folders, and leaves nothing", async () => {
    const folder = join(temporaryFolder(), "model");
    await expect(saveHuggingFace(folder, model, params, { files: { "a/b.json": "{}" } })).rejects.toThrow(
      /names without folders; received "a\/b.json"/,
    );
    expect(readdirSync(join(folder, ".."))).toEqual([]);
  });

  it("keeps the other fields of a source, and adds the files given", async () => {
    const folder = join(temporaryFolder(), "model");
    const source = {
      model_type: "llama",
      bos_token_id: 7,
      rope_theta: 3,
      rope_parameters: { rope_theta: 3 },
      torch_dtype: "int8",
      custom: [1],
    };
    await saveHuggingFace(folder, model, params, {
      source,
      files: { "tokenizer.json": "{}" },
      dtype: "bfloat16",
      configForm: "new",
    });
    const config = readJson(folder, "config.json");
    expect(config).toMatchObject({
      bos_token_id: 7,
      custom: [1],
      dtype: "bfloat16",
      rope_parameters: { rope_theta: 1e4, rope_type: "default" },
    });
    expect(Object.keys(config)).not.toContain("torch_dtype");
    expect(Object.keys(config)).not.toContain("rope_theta");
    expect(await readFile(join(folder, "tokenizer.json"), "utf8")).toBe("{}");
    expect((await loadSafetensors(join(folder, "model.safetensors"))).metadata).toEqual({ format: "pt" });
  });

  it("states the total size and the file of every tensor in the index", async () => {
    const folder = join(temporaryFolder(), "model");
    await saveHuggingFace(folder, model, params, { maxShardBytes: 3000 });
    const index = readJson(folder, "model.safetensors.index.json");
    expect(index.metadata.total_size).toBe(4 * model.parameterCount);
    expect(Object.keys(index.weight_map)).toEqual(Object.keys(params));
    const files = readdirSync(folder).filter((name) => name.endsWith(".safetensors"));
    expect(new Set(Object.values(index.weight_map))).toEqual(new Set(files));
    const numbered = files.map((_, i) => [i + 1, files.length].map((n) => String(n).padStart(5, "0")).join("-of-"));
    expect(files.sort()).toEqual(numbered.map((name) => `model-${name}.safetensors`));
  });

  it("leaves a folder that is there, and nothing where it fails", async () => {
    const place = temporaryFolder();
    const folder = join(place, "model");
    await mkdir(folder);
    writeFileSync(join(folder, "mine.txt"), "mine");
    await expect(saveHuggingFace(folder, model, params)).rejects.toThrow(/is there already/);
    expect(readdirSync(folder)).toEqual(["mine.txt"]);
    const other = join(place, "other");
    const gone = model.init(1);
    gone["lm_head.weight"]!.dispose();
    await expect(saveHuggingFace(other, model, gone)).rejects.toThrow(/disposed/);
    expect(readdirSync(place)).toEqual(["model"]);
    writeFileSync(join(place, "file"), "");
    await expect(saveHuggingFace(join(place, "file", "model"), model, params)).rejects.toThrow(
      /can't be written.*Nothing was changed/,
    );
  });

  it("names what no family can state, and parameters that are not the model's", async () => {
    const folder = join(temporaryFolder(), "model");
    const simplicial = new Transformer({ ...base, attention: [{ kind: "simplicial" }] });
    await expect(saveHuggingFace(folder, simplicial, simplicial.init(1))).rejects.toThrow(
      /is of none of the families llama, .*the nearest, \w+, can't state .*layers/,
    );
    const parallel = new Transformer({ ...base, block: "parallel" });
    await expect(saveHuggingFace(folder, parallel, parallel.init(1))).rejects.toThrow(/llama, can't state block\./);
    const { "model.norm.weight": _, ...incomplete } = params;
    await expect(saveHuggingFace(folder, model, { ...incomplete, "lm_head.weight": tensor([1]) })).rejects.toThrow(
      /"model.norm.weight" is missing; "lm_head.weight" is \[1\], not \[13, 16\]/,
    );
    await expect(saveHuggingFace(folder, model, { ...params, "lora.weight": tensor([1]) })).rejects.toThrow(
      /the parameters are not the model's: "lora.weight" is none of them\./,
    );
  });

  it("leaks nothing", async () => {
    const place = temporaryFolder();
    const round = async (name: string) => {
      await saveHuggingFace(join(place, name), model, params, { dtype: "bfloat16", maxShardBytes: 3000 });
      const loaded = await loadHuggingFace(join(place, name), { dtype: "float32" });
      for (const param of Object.values(loaded.params)) param.dispose();
    };
    await round("first");
    await collectGarbage();
    const before = memory().tensors;
    await round("second");
    expect(memory().tensors).toBe(before);
  });
});
