/** Starts a worker of the given file again and again, and terminates each in the middle of its computation; then still computes. */
import { Worker } from "node:worker_threads";
import { ones } from "../src/index.js";

const [, , file, times] = process.argv;
for (let i = 0; i < Number(times); i++) {
  const worker = new Worker(file!, { workerData: "busy" });
  await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  await new Promise((resolve) => setTimeout(resolve, i % 7));
  await worker.terminate();
}
console.log(ones([10]).sum().itemSync());
