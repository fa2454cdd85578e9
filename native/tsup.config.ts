import { defineConfig } from "tsup";

export default defineConfig({
  entry: ["ts/index.ts", "ts/errors.ts"],
  format: ["esm"],
  dts: true,
  sourcemap: true,
  clean: true,
  target: "node20",
});
