/** Where tensors live, and on which device new ones are made. Inside of the engine a device is a number: 0 the CPU, 1 + i CUDA device i. */
import { cpus, totalmem } from "node:os";
import { DeviceError, engine } from "@llmeff/native";
import { refuseReading } from "./recording.js";

/** `"cuda"` is the first GPU, `"cuda:0"`; `tensor.device` has the number. */
export type Device = "cpu" | "cuda" | `cuda:${number}`;

/** A device, or `"auto"`: the one that `LLMEFF_DEVICE` names, else the first GPU if there is one, else the CPU. */
export type DeviceChoice = Device | "auto";

/** A device of this machine. */
export interface DeviceInfo {
  device: Device;
  name: string;
  memoryBytes: number;
  /** Of a GPU: its compute capability, such as `"9.0"`. */
  capability?: string;
  /** Of a GPU: the newest CUDA that its driver knows, such as `"13.0"`. */
  driver?: string;
}

const cpu = 0;
const firstGpu = 1;

/** `"cpu"`, `"cuda:0"`, … by number. @internal */
export function deviceName(device: number): Device {
  return device === cpu ? "cpu" : `cuda:${device - firstGpu}`;
}

/** The GPUs, or why there are none; asked for once. */
let found: { gpus: readonly DeviceInfo[]; problem?: string } | undefined;

function gpus(): { gpus: readonly DeviceInfo[]; problem?: string } {
  if (found) return found;
  try {
    const list = engine().cudaDevices();
    found =
      list.length > 0
        ? {
            gpus: list.map(({ driver, ...gpu }, i) => ({
              device: deviceName(firstGpu + i),
              ...gpu,
              driver: `${Math.floor(driver / 1000)}.${(driver % 1000) / 10}`,
            })),
          }
        : { gpus: [], problem: "there is no GPU." };
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    found = { gpus: [], problem: error.message.replace(/^\[[^\]]*\] /, "") };
  }
  return found;
}

/** The devices of this machine, the CPU first. */
export function devices(): readonly DeviceInfo[] {
  const name = cpus()[0]?.model.trim().replace(/\s+/g, " ") || "unknown";
  return [{ device: "cpu", name, memoryBytes: totalmem() }, ...gpus().gpus];
}

/** Why there is no GPU to be had: no CUDA library, no driver, one that is too old, no device. Undefined if there is one. */
export function missingGpu(): string | undefined {
  return gpus().problem;
}

/** The number that a name stands for, if it is well-formed. */
function parse(device: unknown): number | undefined {
  if (device === "cpu") return cpu;
  if (device === "cuda" || device === "cuda:0") return firstGpu;
  const match = typeof device === "string" ? /^cuda:(\d{1,3})$/.exec(device) : null;
  return match ? firstGpu + Number(match[1]) : undefined;
}

/** Whether a value is a well-formed device or `"auto"`; whether there is such a device is another question. */
export function isDeviceChoice(value: unknown): value is DeviceChoice {
  return value === "auto" || parse(value) !== undefined;
}

/** The number of a device that is there. @throws {DeviceError} if it isn't, with the reason */
function present(where: string, device: number): number {
  if (device === cpu) return device;
  const { gpus: list, problem } = gpus();
  if (problem !== undefined) {
    throw new DeviceError(
      `[${where}] device ${deviceName(device)} is not to be had: ${problem} Use device "cpu", or "auto" for a GPU where there is one.`,
    );
  }
  if (device - firstGpu >= list.length) {
    const there = list.map((gpu) => `${gpu.device} (${gpu.name})`).join(", ");
    throw new DeviceError(
      `[${where}] device ${deviceName(device)} is not to be had. On this machine there are: cpu, ${there}.`,
    );
  }
  return device;
}

/** What `LLMEFF_DEVICE` says. */
function fromEnvironment(): DeviceChoice | undefined {
  const choice = process.env.LLMEFF_DEVICE;
  if (!choice) return undefined;
  if (!isDeviceChoice(choice)) {
    throw new DeviceError(
      `[LLMEFF_DEVICE] expected cpu, cuda, cuda:0, cuda:1, … or auto; received ${JSON.stringify(choice)}.`,
    );
  }
  return choice;
}

let warned = false;

function automatic(): number {
  const named = fromEnvironment();
  if (named !== undefined && named !== "auto") return present("LLMEFF_DEVICE", parse(named)!);
  const { problem } = gpus();
  if (problem === undefined) return firstGpu;
  if (!warned) {
    warned = true;
    process.emitWarning(
      `llmeff computes on the CPU: ${problem} LLMEFF_DEVICE=cuda makes this an error, =cpu silences it.`,
      {
        type: "DeviceWarning",
        code: "LLMEFF_NO_GPU",
      },
    );
  }
  return cpu;
}

/** The number of the device that an option names. @throws {DeviceError} if there is no such device here @internal */
export function deviceNumber(where: string, choice: DeviceChoice): number {
  if (choice === "cpu") return cpu;
  if (choice === "auto") return automatic();
  const device = parse(choice);
  if (device === undefined) {
    throw new DeviceError(
      `[${where}] device must be "cpu", "cuda", "cuda:0", "cuda:1", … or "auto"; received ${JSON.stringify(choice)}.`,
    );
  }
  return present(where, device);
}

/** `"auto"` and `"cuda"` as the device that they stand for here. @throws {DeviceError} if there is no such device */
export function resolveDevice(choice: DeviceChoice, where = "device"): Device {
  return deviceName(deviceNumber(where, choice));
}

/** Where tensors are made that nobody says anything about; undefined until it is asked for. */
let standard: number | undefined;
/** That of the operation that is running. */
let ambient: number | undefined;

function standardNumber(): number {
  standard ??= fromEnvironment() === undefined ? cpu : automatic();
  return standard;
}

/**
 * Milliseconds on the clock of a device when all that was queued on it before had been computed; differences are the time that the
 * device took for what was queued in between.
 *
 * @example
 * const start = await deviceTime();
 * const y = matmul(x, x);
 * console.log(`${(await deviceTime()) - start} ms`);
 */
export function deviceTime(device?: DeviceChoice): Promise<number> {
  refuseReading("deviceTime");
  return readClock(device);
}

async function readClock(device: DeviceChoice = defaultDevice()): Promise<number> {
  const [milliseconds] = await engine().clock(deviceNumber("deviceTime", device), new Float64Array(1));
  return milliseconds!;
}

/** What the calls of one operation of the engine took of a device's time. */
export interface OpTime {
  /** The kernel's name, such as `"matmul"`. */
  op: string;
  calls: number;
  milliseconds: number;
}

/**
 * Runs `fn` and tells what each kind of kernel that it queued took of a device's time, the longest first. Waits for the work.
 *
 * @example
 * const { ops } = profile(() => step());
 * console.table(ops);
 */
export function profile<R>(fn: () => R, device: DeviceChoice = defaultDevice()): { result: R; ops: OpTime[] } {
  refuseReading("profile");
  const number = deviceNumber("profile", device);
  engine().measureOps(number, true);
  let ops: OpTime[] = [];
  let result: R;
  try {
    result = fn();
  } finally {
    ops = engine().measureOps(number, false);
  }
  return { result: result!, ops: ops.sort((a, b) => b.milliseconds - a.milliseconds) };
}

/** Where tensors are made without a `device`: the CPU, or what `LLMEFF_DEVICE` or `setDefaultDevice` says. */
export function defaultDevice(): Device {
  return deviceName(standardNumber());
}

/**
 * Sets where tensors are made without a `device`, for this thread.
 *
 * @throws {DeviceError} if there is no such device
 *
 * @example
 * setDefaultDevice("auto"); // a GPU if there is one
 */
export function setDefaultDevice(device: DeviceChoice): void {
  standard = deviceNumber("setDefaultDevice", device);
}

/** Inside of an operation the device of its inputs, else the default. @internal */
export function currentDevice(): number {
  return ambient ?? standardNumber();
}

/** The number of the device that an option names, or where tensors are made now. @internal */
export function chosenDevice(where: string, choice: DeviceChoice | undefined): number {
  return choice === undefined ? currentDevice() : deviceNumber(where, choice);
}

/** Runs `fn` with new tensors on a device, if they aren't told another. @internal */
export function onDevice<R>(device: number | undefined, fn: () => R): R {
  const outer = ambient;
  ambient = device ?? outer;
  try {
    return fn();
  } finally {
    ambient = outer;
  }
}

/** Something that lives on a device. */
interface Placed {
  readonly deviceNumber: number;
}

/**
 * The device of the inputs of an operation; undefined if there are none.
 *
 * @throws {DeviceError} if they are on several
 * @internal
 */
export function commonDevice(
  where: string,
  tensors: readonly Placed[],
  names: readonly string[] = [],
): number | undefined {
  const device = tensors[0]?.deviceNumber;
  for (let i = 1; i < tensors.length; i++) {
    const other = tensors[i]!.deviceNumber;
    if (other !== device) throw apart(where, names[0] ?? "argument 1", device!, names[i] ?? `argument ${i + 1}`, other);
  }
  return device;
}

/** The error for tensors on two devices. @internal */
export function apart(where: string, first: string, device: number, second: string, other: number): DeviceError {
  const [name, target] = device === cpu ? [first, other] : [second, device];
  const variable = /^\w+$/.test(name) ? name : "x";
  return new DeviceError(
    `[${where}] tensors must be on one device; ${first} is on ${deviceName(device)} and ${second} is on ${deviceName(other)}. Move one: ${variable}.to("${deviceName(target)}").`,
  );
}

/** Devices on which this thread has made tensors. */
const inUse = new Set<number>([cpu]);

/** @internal */
export function noteUse(device: number): void {
  if (device !== cpu) inUse.add(device);
}

/** @internal */
export function devicesInUse(): readonly number[] {
  return [...inUse];
}
