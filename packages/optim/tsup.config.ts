import { defineConfig } from "tsup";

export default defineConfig({
  entry: ["src/index.ts", "src/jax-js.ts", "src/tfjs.ts"],
  format: ["esm"],
  dts: true,
  sourcemap: true,
  clean: true,
  target: "node20",
});
