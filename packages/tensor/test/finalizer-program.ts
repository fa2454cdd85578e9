/** Makes tensors without disposing them, collects garbage, and says how many are left. Run with --expose-gc. */
import { keep, memory, scope, zeros } from "../src/index.js";

function forget(): void {
  for (let i = 0; i < 100; i++) {
    zeros([1000]);
    scope(() => scope(() => [zeros([1000])]));
    scope(() => {
      keep(zeros([1000]));
    });
  }
}

forget();
const made = memory().tensors;
for (let i = 0; i < 50 && memory().tensors > 0; i++) {
  globalThis.gc?.();
  await new Promise((resolve) => setTimeout(resolve, 10));
}
console.log(JSON.stringify({ made, left: memory().tensors }));
