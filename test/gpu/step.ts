/** A training step of a small model, and what it leaves, for tests that disturb it. */
import { createHash } from "node:crypto";
import { Transformer } from "@llmeff/models";
import { AdamW, Sonew } from "@llmeff/optim";
import { type DeviceChoice, scope, type Tensor, tensor, valueAndGrad } from "@llmeff/tensor";

export interface Size {
  layers: number;
  width: number;
  seqLen: number;
  batchSize: number;
}

export const small: Size = { layers: 2, width: 64, seqLen: 32, batchSize: 4 };
/** Some ten milliseconds of work for a GPU: long enough to be interrupted in the middle. */
export const large: Size = { layers: 8, width: 1024, seqLen: 512, batchSize: 16 };

const vocabSize = 512;
const optimizers = { AdamW, Sonew };

/** The same run wherever and whenever it is made: parameters, batches and order of sums are fixed. */
export class Run {
  readonly params: Record<string, Tensor>;
  readonly optimizer: AdamW<Tensor> | Sonew<Tensor>;
  readonly #model: Transformer;

  constructor(
    readonly size: Size,
    options: { device?: DeviceChoice; optimizer?: keyof typeof optimizers; dtype?: "bfloat16" | "float32" } = {},
  ) {
    const { device, optimizer = "AdamW", dtype = "bfloat16" } = options;
    const { layers, width, seqLen } = size;
    this.#model = new Transformer({
      vocabSize,
      dModel: width,
      numLayers: layers,
      numHeads: width / 32,
      maxSeqLen: seqLen,
    });
    this.params = this.#model.init(1, { dtype, ...(device === undefined ? {} : { device }) });
    this.optimizer = new optimizers[optimizer](this.params, { learningRate: 1e-3, maxGradNorm: 1 });
  }

  /** Enqueues one step and returns its loss, for the caller to read and dispose. `change` may spoil the gradients. */
  enqueue(change: (grads: Record<string, Tensor>) => Record<string, Tensor> = (grads) => grads): Tensor {
    const { seqLen, batchSize } = this.size;
    const at = this.optimizer.stepCount; // a step that failed is tried again with its batch
    return scope(() => {
      const numbers = (offset: number) =>
        Int32Array.from({ length: batchSize * seqLen }, (_, i) => (Math.imul(i + at, 7) + offset) % 61);
      const on = { shape: [batchSize, seqLen], device: Object.values(this.params)[0]!.device };
      const batch = { tokens: tensor(numbers(0), on), targets: tensor(numbers(7), on) };
      const { value, grads } = valueAndGrad((p) => this.#model.loss(p, batch), this.params);
      this.optimizer.step(change(grads));
      return value;
    });
  }

  async step(change?: (grads: Record<string, Tensor>) => Record<string, Tensor>): Promise<number> {
    using loss = this.enqueue(change);
    return loss.item();
  }

  /** A digest of all bits of the parameters and the optimizer's state. */
  async bits(): Promise<string> {
    const hash = createHash("sha256");
    const all = { ...this.params, ...this.optimizer.stateDict().tensors };
    for (const name of Object.keys(all).sort()) hash.update(name).update(await bytesOf(all[name]!));
    return hash.digest("hex");
  }

  dispose(): void {
    this.optimizer.dispose();
    for (const param of Object.values(this.params)) param.dispose();
  }
}

async function bytesOf(x: Tensor): Promise<Uint8Array> {
  const { buffer, byteOffset, byteLength } = await x.data();
  return new Uint8Array(buffer, byteOffset, byteLength);
}
