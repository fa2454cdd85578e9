import { defineConfig } from "vitest/config";

/** Tests run from source: the `@llmeff/source` export condition points at each package's `src/index.ts`. */
export default defineConfig({
  resolve: { conditions: ["@llmeff/source", "node", "import", "default"] },
  ssr: {
    resolve: {
      conditions: ["@llmeff/source", "node", "import", "default"],
      externalConditions: ["@llmeff/source", "node"],
    },
  },
  test: {
    include: [
      "packages/*/src/**/*.test.ts",
      "packages/*/test/**/*.test.ts",
      "native/ts/**/*.test.ts",
      "test/**/*.test.ts",
    ],
    pool: "forks",
    // Against hanging alone: no test should depend on how fast or busy the machine is, and the sanitizers take ten times as long.
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
