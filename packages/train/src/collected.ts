/** What an objective tells of a step beside its loss: tensors that are added up over the micro-batches. */
import { add, clone, keep, noGrad, scope, type Tensor } from "@llmeff/tensor";

export class Collected {
  readonly sums: Record<string, Tensor> = {};

  readonly collect = (name: string, value: Tensor): void => {
    const before = this.sums[name];
    this.sums[name] = keep(noGrad(() => scope(() => (before === undefined ? clone(value) : add(before, value)))));
    before?.dispose();
  };

  dispose(): void {
    for (const sum of Object.values(this.sums)) sum.dispose();
  }
}
