/**
 * An engine that has GPUs which are the CPU under other numbers, so that the logic of devices can be tested on any machine. As the engine does, it
 * refuses a call with arrays of two devices.
 */
import type * as library from "@llmeff/native";
import type { Binding, Handle, KernelTable } from "@llmeff/native";
import { vi } from "vitest";

/** Marks the handles that this engine gives out, to tell them from the numbers among a kernel's arguments. */
const mark = 2 ** 52;

export interface FakeGpus {
  /** Names of the GPUs; none: `cudaDevices` throws the problem. */
  names: readonly string[];
  problem: string;
}

type Call = (...args: unknown[]) => unknown;

/** Gives packages that are imported from now on such an engine, and no device by `LLMEFF_DEVICE` but that of `environment`. */
export function useFakeGpus(gpus: FakeGpus, environment?: string): void {
  vi.stubEnv("LLMEFF_DEVICE", environment);
  vi.resetModules();
  vi.doMock("@llmeff/native", async (original) => {
    const real = await original<typeof library>();
    const engine = withFakeGpus(real, gpus);
    return { ...real, engine: () => engine };
  });
}

function withFakeGpus({ engine, DeviceError }: typeof library, { names, problem }: FakeGpus): Binding {
  const native = engine();
  const deviceOf = new Map<Handle, number>();
  const isHandle = (value: unknown): value is Handle => typeof value === "number" && deviceOf.has(value);
  const given = (handle: Handle, device: number) => {
    deviceOf.set(handle + mark, device);
    return handle + mark;
  };
  const real = (value: unknown): unknown =>
    Array.isArray(value) ? value.map(real) : isHandle(value) ? value - mark : value;
  const checked = (name: string, call: Call) => {
    return (...args: unknown[]) => {
      const devices = new Set(args.flat().flatMap((arg) => (isHandle(arg) ? [deviceOf.get(arg)!] : [])));
      if (devices.size > 1) throw new DeviceError(`[${name}] arrays on devices ${[...devices].join(" and ")}.`);
      return call(...args.map(real));
    };
  };
  const passing = Object.fromEntries(
    Object.entries(native).flatMap(([name, call]) =>
      typeof call === "function" ? [[name, checked(name, call as Call)]] : [],
    ),
  ) as unknown as Binding;
  return {
    ...passing,
    create(device, dtype, ...shape) {
      if (device < 0 || device > names.length) throw new DeviceError(`[create] there is no device ${device}.`);
      return given(native.create(0, dtype, ...shape), device);
    },
    view: (base, ...rest) => given(native.view(real(base) as Handle, ...rest), deviceOf.get(base) ?? 0),
    release(handle) {
      native.release(real(handle) as Handle);
      deviceOf.delete(handle);
    },
    transfer: (from, to) => void native.op.copy(real(from) as Handle, real(to) as Handle),
    memory: () => native.memory(0),
    resetPeak: () => native.resetPeak(0),
    emptyCache: () => native.emptyCache(0),
    synchronize: () => native.synchronize(0),
    cudaDevices() {
      if (names.length === 0) throw new DeviceError(`[cuda] ${problem}`);
      return names.map((name) => ({ name, memoryBytes: 2 ** 30, capability: "9.0", driver: 13000 }));
    },
    op: Object.fromEntries(
      Object.entries(native.op).map(([name, call]) => [name, checked(name, call as Call)]),
    ) as unknown as KernelTable,
  };
}
