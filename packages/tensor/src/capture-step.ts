/** Training steps of fixed shapes that run without JavaScript, and on a GPU without launching their kernels one by one. */
import { DisposedError, DTypeCode, DTypeError, engine, OptionError, ShapeError } from "@llmeff/native";
import { hold } from "./autograd.js";
import { chosenDevice, type DeviceChoice, deviceName } from "./device.js";
import { checkDType, type DType, holds, type TypedArray } from "./dtype.js";
import { clone, copyInto } from "./ops/index.js";
import { isCapturing, Recording, withRecording } from "./recording.js";
import { adopt, scope } from "./scope.js";
import { checkShape, formatShape, type Shape, sameShape } from "./shape.js";
import { currentTape, noGrad } from "./tape.js";
import { forgetCallSites, keepCallSites, Tensor } from "./tensor.js";
import { replaceTensors, tensorsOf } from "./tree.js";

/** The form of an input; a tensor says it by example. */
export interface InputForm {
  shape: Shape;
  /** Default float32. */
  dtype?: DType;
}

/** What an input is given in a step: a tensor, or its values in row-major order. */
export type InputValue = Tensor | TypedArray;

export interface CaptureStepOptions<K extends string> {
  /** The inputs by name. */
  inputs: Readonly<Record<K, Tensor | InputForm>>;
  /** Steps that run as they are before one is captured, so that all that is made once is there; at least 1, default 2. */
  warmup?: number;
  /** Where the step runs; default that of the example tensors, else the default device. */
  device?: DeviceChoice;
}

/** A step that `captureStep` made. */
export interface CapturedStep<K extends string, R> {
  /** Runs the step with these inputs. Its tensors belong to the caller. */
  (inputs: Readonly<Record<K, InputValue>>): R;
  /** Whether it has been captured, so that calls are replays; `"eager"` during the warm-up, and for good when the capture failed. */
  readonly mode: "eager" | "captured";
  /** Gives its memory back when what was queued has run. The step can't be called afterwards. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * Captures a training step of fixed shapes: the first calls run `fn` as it is, the next one records what it asks of the engine, and from there on
 * a call is a replay of the recording with new inputs, in which `fn` isn't run. On a GPU a replay is one launch of a CUDA graph. Results have the
 * same bits either way.
 *
 * A step may do all that a training step does: `valueAndGrad`, `checkpoint`, several micro-batches, `dropout`, the optimizers of
 * `@llmeff/optim` with their schedules, clipping and counters. What it does must not depend on values, since only one of its runs is recorded: numbers
 * of JavaScript that change from step to step come from `hostNumber`, effects on the host go into `hostEffect`. Tensors that it uses from outside are
 * used in place and must live as long as the step; what it makes and keeps is overwritten by the next replay. Reading values, taking them from
 * JavaScript's arrays, and other devices are refused: then the call throws, nothing of the step has happened, and further calls run `fn` as it is.
 *
 * @param fn - the step: receives the inputs as tensors, which it must not dispose; returns a tensor, or tensors in arrays and plain objects
 * @param options.inputs - the form of each input, which every call must give
 * @throws {CaptureError} from the call that captures, naming the operation that can't be captured
 * @throws {ShapeError} from a call whose input has another shape
 * @throws {DTypeError} from a call whose input has another dtype
 *
 * @example
 * const step = captureStep(
 *   ({ x, y }) => {
 *     const { value, grads } = valueAndGrad((p) => mseLoss(linear(x, p.w), y), params);
 *     optimizer.step(grads);
 *     return value;
 *   },
 *   { inputs: { x: { shape: [64, 16] }, y: { shape: [64, 1] } } },
 * );
 * for (const { x, y } of batches) losses.push(step({ x, y })); // read them later
 */
export function captureStep<K extends string, R>(
  fn: (inputs: Readonly<Record<K, Tensor>>) => R,
  options: CaptureStepOptions<K>,
): CapturedStep<K, R> {
  const step = new Step(fn, options);
  const call = (inputs: Readonly<Record<K, InputValue>>) => step.call(inputs);
  const dispose = () => step.dispose();
  return Object.defineProperty(Object.assign(call, { dispose, [Symbol.dispose]: dispose }), "mode", {
    get: () => step.mode,
    enumerable: true,
  }) as CapturedStep<K, R>;
}

interface Program {
  /** The engine's number of it. */
  readonly number: number;
  readonly recording: Recording;
  /** What the step returned, and the memory of the tensors in it, which every replay overwrites. */
  readonly result: unknown;
  readonly tensors: readonly Tensor[];
}

class Step<K extends string, R> {
  readonly #fn: (inputs: Readonly<Record<K, Tensor>>) => R;
  /** The memory of the inputs, the same in every call. */
  readonly #inputs: Readonly<Record<K, Tensor>>;
  readonly #device: number;
  #warmup: number;
  #program: Program | undefined;
  #failed = false;
  #disposed = false;

  constructor(fn: (inputs: Readonly<Record<K, Tensor>>) => R, options: CaptureStepOptions<K>) {
    const { inputs, warmup = 2, device } = options;
    if (typeof fn !== "function") throw new OptionError(`[captureStep] fn must be a function; received ${typeof fn}.`);
    if (typeof inputs !== "object" || inputs === null || inputs instanceof Tensor) {
      throw new OptionError(
        '[captureStep] inputs must be tensors or forms by name, { tokens: { shape: [8, 128], dtype: "int32" } }.',
      );
    }
    if (!Number.isSafeInteger(warmup) || warmup < 1) {
      throw new OptionError(`[captureStep] warmup must be an integer of at least 1; received ${String(warmup)}.`);
    }
    const forms = Object.entries(inputs) as [K, Tensor | InputForm][];
    const example = forms.map(([, form]) => form).find((form) => form instanceof Tensor);
    this.#device =
      device === undefined && example ? (example as Tensor).deviceNumber : chosenDevice("captureStep", device);
    for (const [, { shape, dtype = "float32" }] of forms) {
      checkShape("captureStep", shape);
      checkDType("captureStep", dtype);
    }
    this.#fn = fn;
    this.#warmup = warmup;
    this.#inputs = Object.fromEntries(
      forms.map(([name, { shape, dtype = "float32" }]) => [
        name,
        adopt(Tensor.allocate(dtype, [...shape], this.#device)),
      ]),
    ) as Record<K, Tensor>;
  }

  get mode(): "eager" | "captured" {
    return this.#program ? "captured" : "eager";
  }

  call(inputs: Readonly<Record<K, InputValue>>): R {
    if (this.#disposed) throw new DisposedError("[captureStep] the step was disposed. Capture it again.");
    if (isCapturing() || currentTape() !== undefined) {
      throw new OptionError(
        "[captureStep] a captured step can't be part of another one, nor of a loss. Call it outside.",
      );
    }
    this.#check(inputs);
    if (this.#program) return this.#replay(this.#program, inputs, numbersOf(this.#program.recording));
    if (this.#failed || this.#warmup > 0) {
      this.#take(inputs);
      const result = this.#eager();
      this.#warmup--;
      return result;
    }
    this.#failed = true; // until it has succeeded
    const [program, numbers] = this.#capture();
    this.#program = program;
    this.#failed = false;
    return this.#replay(program, inputs, numbers);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (this.#program) release(this.#program);
    this.#program = undefined;
    for (const tensor of Object.values<Tensor>(this.#inputs)) tensor.dispose();
  }

  #check(inputs: Readonly<Record<K, InputValue>>): void {
    const names = Object.keys(this.#inputs);
    const given = typeof inputs === "object" && inputs !== null ? Object.keys(inputs) : [];
    const wrong = [...names.filter((name) => !given.includes(name)), ...given.filter((name) => !names.includes(name))];
    if (wrong.length > 0) {
      throw new OptionError(
        `[captureStep] expected the inputs ${names.join(", ") || "of no name"}; received ${given.join(", ") || "none"}.`,
      );
    }
    for (const name of names as K[]) checkInput(name, this.#inputs[name], inputs[name]);
  }

  #take(inputs: Readonly<Record<K, InputValue>>): void {
    for (const name of Object.keys(this.#inputs) as K[]) {
      const [to, value]: [Tensor, InputValue] = [this.#inputs[name], inputs[name]];
      if (value instanceof Tensor) copyInto(to, value);
      else if (to.size > 0) engine().upload(to.handle, value, DTypeCode[to.dtype]);
    }
  }

  /** The step as it is. Its results are never the memory of the inputs, which the next call changes. */
  #eager(): R {
    return scope(() => {
      const result = this.#fn(this.#inputs);
      const inputs = new Set(Object.values<Tensor>(this.#inputs));
      const tensors = tensorsOf(result);
      return tensors.some((tensor) => inputs.has(tensor))
        ? (replaceTensors(
            result,
            tensors.map((tensor) => (inputs.has(tensor) ? clone(tensor) : tensor)),
          ) as R)
        : result;
    });
  }

  /** Records the step and makes it ready to be replayed with the numbers that it gives. */
  #capture(): [Program, Float64Array] {
    const recording = new Recording();
    let tensors: readonly Tensor[] = [];
    let result: unknown;
    let number = 0;
    engine().recordProgram(this.#device);
    try {
      withRecording(recording, () =>
        scope(() => {
          result = this.#fn(this.#inputs);
          tensors = tensorsOf(result).map(hold);
          return result instanceof Promise ? result : undefined; // which a scope refuses
        }),
      );
      if (recording.problem !== undefined) throw recording.problem;
      for (const tensor of tensors) this.#requireHere(tensor);
      number = engine().endProgram(true);
      const program = { number, recording, result, tensors };
      const numbers = numbersOf(recording);
      engine().compileProgram(number, numbers);
      keepCallSites(recording.sites);
      return [program, numbers];
    } catch (error) {
      if (number === 0) engine().endProgram(false);
      release({ number, recording, result, tensors });
      throw error;
    }
  }

  #requireHere(tensor: Tensor): void {
    if (tensor.deviceNumber === this.#device) return;
    throw new OptionError(
      `[captureStep] the step runs on ${deviceName(this.#device)} and returned a tensor on ${tensor.device}. Move it outside of the step.`,
    );
  }

  #replay(
    { number, recording, result, tensors }: Program,
    inputs: Readonly<Record<K, InputValue>>,
    numbers: Float64Array,
  ): R {
    this.#take(inputs);
    engine().runProgram(number, numbers);
    const copies = noGrad(() => tensors.map(clone));
    try {
      happen(recording.effects);
    } catch (error) {
      for (const copy of copies) copy.dispose();
      throw error;
    }
    return replaceTensors(result, copies) as R;
  }
}

/** All of them, for the operations of all are queued. Throws what the first one threw. */
function happen(effects: readonly (() => void)[]): void {
  const errors: unknown[] = [];
  for (const effect of effects) {
    try {
      effect();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

/** What the providers give now; they are asked before anything is done, after the checks. */
function numbersOf({ checks, providers }: Recording): Float64Array {
  for (const check of checks) check();
  return Float64Array.from(providers, (provide) => provide());
}

function release({ number, recording, tensors }: Program): void {
  for (const tensor of tensors) tensor.dispose();
  for (const dispose of recording.disposals) dispose();
  forgetCallSites(recording.sites);
  if (number !== 0) engine().releaseProgram(number);
}

function checkInput(name: string, wanted: Tensor, value: unknown): void {
  if (value instanceof Tensor) {
    if (value.dtype !== wanted.dtype) {
      throw new DTypeError(
        `[captureStep] input "${name}" must have dtype ${wanted.dtype}; received ${value.dtype}. Use astype().`,
      );
    }
    if (!sameShape(value.shape, wanted.shape)) {
      throw new ShapeError(
        `[captureStep] input "${name}" must have shape ${formatShape(wanted.shape)}; received ${formatShape(value.shape)}. A captured step has fixed shapes; capture another one.`,
      );
    }
    void value.handle; // refuses a disposed one before anything is copied
    return;
  }
  if (!holds(value, wanted.dtype)) {
    const received = typeof value === "object" && value !== null ? value.constructor.name : String(value);
    throw new DTypeError(
      `[captureStep] input "${name}" must be a tensor or a typed array of ${wanted.dtype}; received ${received}.`,
    );
  }
  if (value.length !== wanted.size) {
    throw new ShapeError(
      `[captureStep] input "${name}" of shape ${formatShape(wanted.shape)} has ${wanted.size} elements; received ${value.length} values.`,
    );
  }
}
