import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { root } from "./code-blocks.js";

interface Manifest {
  name: string;
  version: string;
  description?: string;
  license?: string;
  type?: string;
  sideEffects?: boolean;
  private?: boolean;
  engines?: { node?: string };
  files?: string[];
  os?: string[];
  cpu?: string[];
  scripts?: Record<string, string>;
  exports?: Record<string, Record<string, string>>;
  publishConfig?: { access?: string; exports?: Record<string, Record<string, string>> };
  optionalDependencies?: Record<string, string>;
}

function manifestsIn(folder: string): { dir: string; manifest: Manifest }[] {
  return readdirSync(join(root, folder))
    .map((name) => join(root, folder, name))
    .filter((dir) => existsSync(join(dir, "package.json")))
    .map((dir) => ({ dir, manifest: JSON.parse(readFileSync(join(dir, "package.json"), "utf8")) as Manifest }));
}

const native = manifestsIn(".").filter(({ dir }) => dir.endsWith("native"));
const libraries = [...native, ...manifestsIn("packages")];
const platforms = manifestsIn(join("native", "npm"));

describe.each([...libraries, ...platforms].map((entry) => [entry.manifest.name, entry] as const))(
  "%s",
  (_, { dir, manifest }) => {
    it("states description, licence, Node version and public access", () => {
      expect(manifest.description).toBeTruthy();
      expect(manifest.license).toBe("Apache-2.0");
      expect(manifest.engines?.node).toBe(">=20.19");
      expect(manifest.publishConfig?.access).toBe("public");
      expect(manifest.private).toBeUndefined();
    });

    it("has a README that begins with its name", () => {
      expect(readFileSync(join(dir, "README.md"), "utf8").split("\n")[0]).toBe(`# ${manifest.name}`);
    });

    it("runs nothing when it is installed", () => {
      const scripts = Object.keys(manifest.scripts ?? {});
      expect(scripts.filter((name) => /^(?:pre|post)?install$|^prepare$/.test(name))).toEqual([]);
    });
  },
);

describe.each(libraries.map(({ manifest }) => [manifest.name, manifest] as const))("%s", (_, manifest) => {
  it("is an ES module that runs from source here and from dist at its users", () => {
    expect(manifest.type).toBe("module");
    expect(manifest.sideEffects).toBe(false);
    expect(manifest.files).toContain("dist");
    const withoutSource = Object.fromEntries(
      Object.entries(manifest.exports ?? {}).map(([entry, { "@llmeff/source": source, ...rest }]) => {
        expect(source).toMatch(/^\.\/(?:src|ts)\/.*\.ts$/);
        return [entry, rest];
      }),
    );
    expect(manifest.publishConfig?.exports ?? {}).toEqual(withoutSource);
  });
});

describe("platform packages", () => {
  const isCuda = ({ manifest }: (typeof platforms)[number]) => manifest.name.endsWith("-cuda");

  it("are the optional dependencies of @llmeff/native, at its version; CUDA is for who asks for it", () => {
    const [{ manifest } = { manifest: undefined }] = native;
    expect(Object.keys(manifest?.optionalDependencies ?? {}).sort()).toEqual(
      platforms
        .filter((entry) => !isCuda(entry))
        .map((entry) => entry.manifest.name)
        .sort(),
    );
    for (const entry of platforms) expect(entry.manifest.version).toBe(manifest?.version);
  });

  it("name their operating system and processor", () => {
    for (const entry of platforms) {
      const { name, os, cpu, files } = entry.manifest;
      expect(name).toBe(`@llmeff/native-${os?.join()}-${cpu?.join()}${isCuda(entry) ? "-cuda" : ""}`);
      expect(files).toEqual([isCuda(entry) ? "llmeff-cuda.so" : "llmeff.node"]);
    }
  });
});

it("the root lists every library, so that the code of documents can import it", () => {
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    devDependencies: Record<string, string>;
  };
  for (const { manifest } of libraries) expect(devDependencies).toHaveProperty([manifest.name], "workspace:*");
});
