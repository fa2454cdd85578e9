/** `llmeff info` */
import { createRequire } from "node:module";
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from "node:os";
import { engine } from "@llmeff/native";
import {
  type DeviceChoice,
  DeviceError,
  type DeviceInfo,
  defaultDevice,
  devices,
  missingGpu,
  resolveDevice,
} from "@llmeff/tensor";
import { type Io, print } from "../io.js";
import { version } from "../version.js";

export interface Info {
  llmeff: string;
  node: string;
  system: string;
  processor: string;
  usableCores: number;
  memoryGiB: number;
  freeMemoryGiB: number;
  /** Where tensors are made by default, or why that can't be. */
  device: string;
  gpus: Omit<DeviceInfo, "device">[];
  /** Why there are none. */
  noGpu?: string;
  instructionSet: string;
  availableInstructionSets: string[];
  threads: number;
  compiler: string;
  nativeBinary: string;
}

const gibibytes = (bytes: number) => Number((bytes / 2 ** 30).toFixed(1));

/** The addon that this process has loaded. */
function binaryPath(): string {
  const loaded = Object.keys(createRequire(import.meta.url).cache);
  return loaded.find((path) => path.endsWith("llmeff.node")) ?? "unknown";
}

function deviceInUse(choice: DeviceChoice | undefined): string {
  try {
    return choice === undefined ? defaultDevice() : resolveDevice(choice);
  } catch (error) {
    if (error instanceof DeviceError) return error.message;
    throw error;
  }
}

function describeGpu({ name, memoryBytes, capability, driver }: Info["gpus"][number]): string {
  return `${name} (${gibibytes(memoryBytes)} GiB, compute capability ${capability}, driver for CUDA ${driver})`;
}

/** What runs here, and on what. @throws {NativeLoadError} if there is no engine */
export function collectInfo(device?: DeviceChoice): Info {
  const { isa, availableIsas, numThreads, compiler } = engine().info();
  const gpus = devices().slice(1);
  const problem = missingGpu();
  return {
    llmeff: version(),
    node: process.versions.node,
    system: `${platform()} ${release()}, ${arch()}`,
    processor: cpus()[0]?.model.trim().replace(/\s+/g, " ") || "unknown",
    usableCores: availableParallelism(),
    memoryGiB: gibibytes(totalmem()),
    freeMemoryGiB: gibibytes(freemem()),
    device: deviceInUse(device),
    gpus: gpus.map(({ device: _, ...gpu }) => gpu),
    ...(problem === undefined ? {} : { noGpu: problem }),
    instructionSet: isa,
    availableInstructionSets: availableIsas,
    threads: numThreads,
    compiler,
    nativeBinary: binaryPath(),
  };
}

const labels: Record<keyof Info, string> = {
  llmeff: "llmeff",
  node: "Node.js",
  system: "System",
  processor: "Processor",
  usableCores: "Usable cores",
  memoryGiB: "Memory, GiB",
  freeMemoryGiB: "Free memory, GiB",
  device: "Device",
  gpus: "GPUs",
  noGpu: "No GPU because",
  instructionSet: "Instruction set in use",
  availableInstructionSets: "Instruction sets available",
  threads: "Threads",
  compiler: "Compiler of the engine",
  nativeBinary: "Native binary",
};

/** Names and values for people. */
export function infoFacts(info: Info): { name: string; value: string }[] {
  const text = { ...info, gpus: info.gpus.map(describeGpu).join(", ") || "none" };
  return Object.entries(text).map(([key, value]) => ({
    name: labels[key as keyof Info],
    value: Array.isArray(value) ? value.join(", ") : String(value),
  }));
}

export function infoCommand(io: Io, { json = false }: { json?: boolean }): void {
  const info = collectInfo();
  if (json) {
    print(io, JSON.stringify(info, null, 2));
    return;
  }
  const width = Math.max(...Object.values(labels).map((label) => label.length));
  for (const { name, value } of infoFacts(info)) print(io, `${name.padEnd(width)}  ${value}`);
}
