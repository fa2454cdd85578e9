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
    testTimeout: 60_000,
    // Some bundle a program and run it, which takes longer under the sanitizers than the usual 10 s.
    hookTimeout: 120_000,
  },
});
