import type { errorFromNative } from "./errors.js";

/** An array of the engine: a number that names it until it is released. */
export type Handle = number;

/** Memory that a kernel may work on: an array of the engine, or a typed array (then the call ends before it returns). */
export type Operand = Handle | Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array;
export type OptionalOperand = Operand | null;

/** dtypes by number, as the engine counts them. */
export const DTypeCode = { float32: 0, float64: 1, bfloat16: 2, float16: 3, int32: 4, uint8: 5, bool: 6 } as const;
export const UnaryOp = {
  neg: 0,
  abs: 1,
  exp: 2,
  log: 3,
  sqrt: 4,
  rsqrt: 5,
  reciprocal: 6,
  square: 7,
  sin: 8,
  cos: 9,
  tanh: 10,
  sigmoid: 11,
  silu: 12,
  gelu: 13,
  relu: 14,
  isFinite: 15,
  expm1: 16,
  log1p: 17,
  tan: 18,
  asin: 19,
  acos: 20,
  atan: 21,
  sinh: 22,
  cosh: 23,
  erf: 24,
  geluErf: 25,
  softplus: 26,
  floor: 27,
  ceil: 28,
  round: 29,
  trunc: 30,
  sign: 31,
  isNaN: 32,
  logicalNot: 33,
} as const;
export const BinaryOp = {
  add: 0,
  sub: 1,
  mul: 2,
  div: 3,
  pow: 4,
  maximum: 5,
  minimum: 6,
  equal: 7,
  notEqual: 8,
  less: 9,
  lessEqual: 10,
  greater: 11,
  greaterEqual: 12,
  atan2: 13,
  remainder: 14,
  logAddExp: 15,
  logicalAnd: 16,
  logicalOr: 17,
  logicalXor: 18,
} as const;
export const ReduceOp = { sum: 0, mean: 1, max: 2, min: 3, prod: 4, variance: 5, logSumExp: 6 } as const;
/** Activations that a matrix product applies to its result; gelu is the tanh form. */
export const Activation = { none: 0, relu: 1, gelu: 2, geluErf: 3, silu: 4 } as const;
export const Distribution = { uniform: 0, normal: 1 } as const;
export const Graft = { none: 0, adam: 1, adamRaw: 2, sgd: 3, momentum: 4, rmspropNorm: 5 } as const;
/** Element-wise optimizers: `native/src/include/llmeff/update_rules.h` has what they compute, their states and their factors. */
export const UpdateRule = {
  sgd: 0,
  momentum: 1,
  adagrad: 2,
  rmsprop: 3,
  rmspropMomentum: 4,
  rmspropCentered: 5,
  rmspropCenteredMomentum: 6,
  adam: 7,
  amsgrad: 8,
  lion: 9,
  scheduleFree: 10,
} as const;
export type UpdateRule = (typeof UpdateRule)[keyof typeof UpdateRule];

/** A number; in a program that is being recorded also a bigint, the position of the number among those that each run is given. */
export type Scalar = number | bigint;

type O = Operand;
type Opt = OptionalOperand;
/** A queued call's number, in order of submission. */
type Ticket = number;

/**
 * The kernels, one function each: `native/src/include/llmeff/kernels.h` documents what they compute. They are queued and return at
 * once. Shapes and dtypes must be right: `@llmeff/tensor` checks them and is what programs use.
 */
export interface KernelTable {
  copy(x: O, out: O): Ticket;
  fill(value: Scalar, out: O): Ticket;
  random(distribution: number, seed: Scalar, stream: Scalar, out: O): Ticket;
  unary(op: number, x: O, out: O): Ticket;
  unaryGrad(op: number, x: O, dy: O, dx: O): Ticket;
  binary(op: number, a: O, b: O, out: O): Ticket;
  addAll(xs: readonly O[], out: O): Ticket;
  where(condition: O, a: O, b: O, out: O): Ticket;
  reduce(op: number, x: O, out: O): Ticket;
  dropout(x: O, rate: number, seed: Scalar, stream: Scalar, out: O): Ticket;
  gather(x: O, indices: O, axis: number, out: O): Ticket;
  scatterAdd(x: O, indices: O, axis: number, out: O): Ticket;
  scatter(x: O, indices: O, axis: number, out: O): Ticket;
  cumsum(x: O, axis: number, reverse: boolean, out: O): Ticket;
  argsort(x: O, descending: boolean, out: O): Ticket;
  topK(x: O, largest: boolean, out: O): Ticket;
  argReduce(op: number, x: O, out: O): Ticket;
  likeliest(x: O, ids: O, found: O): Ticket;
  sampleTokens(x: O, how: O, u: O, ids: O, found: O): Ticket;
  matmul(a: O, b: O, bias: Opt, activation: number, pre: Opt, out: O): Ticket;
  /** `matmul` of `b` `[…, N, K]`. */
  matmulTransposed(a: O, b: O, bias: Opt, activation: number, pre: Opt, out: O): Ticket;
  linearMany(x: O, norm: Opt, normOffset: number, eps: number, weights: readonly O[], out: O): Ticket;
  linearAdd(x: O, weight: O, residual: O, out: O): Ticket;
  groupedMatmul(xs: readonly O[], ws: readonly O[], counts: O, out: O): Ticket;
  groupedMatmulGrad(a: O, b: O, counts: O, dw: O): Ticket;
  gatherSum(x: O, ids: O, weights: Opt, out: O): Ticket;
  gatherSumGrad(x: O, ids: O, dout: O, dweights: O): Ticket;
  softmax(x: O, y: O): Ticket;
  softmaxGrad(y: O, dy: O, dx: O): Ticket;
  logSoftmax(x: O, y: O): Ticket;
  logSoftmaxGrad(y: O, dy: O, dx: O): Ticket;
  embedding(table: O, ids: O, out: O): Ticket;
  embeddingGrad(dout: O, ids: O, dtable: O): Ticket;
  rmsNorm(x: O, residual: Opt, weight: O, weightOffset: number, eps: number, sum: Opt, y: O, rstd: Opt): Ticket;
  rmsNormGrad(dy: O, dsum: Opt, x: O, weight: O, weightOffset: number, rstd: O, dx: O, dweight: O): Ticket;
  layerNorm(x: O, residual: Opt, weight: Opt, bias: Opt, eps: number, sum: Opt, y: O, mean: Opt, rstd: Opt): Ticket;
  layerNormGrad(dy: O, dsum: Opt, x: O, weight: Opt, mean: O, rstd: O, dx: O, dweight: Opt, dbias: Opt): Ticket;
  rope(x: O, cos: O, sin: O, interleaved: boolean, inverse: boolean, out: O): Ticket;
  ropeAndKeep(q: O, k: O, v: O, cos: O, sin: O, interleaved: boolean, turned: O, keys: O, values: O): Ticket;
  swiglu(gate: O, up: O, out: O): Ticket;
  swigluLinear(x: O, norm: Opt, normOffset: number, eps: number, gate: O, up: O, out: O): Ticket;
  swigluGrad(dout: O, gate: O, up: O, dgate: O, dup: O): Ticket;
  conv2d(
    x: O,
    weight: O,
    bias: Opt,
    strideH: number,
    strideW: number,
    paddingH: number,
    paddingW: number,
    dilationH: number,
    dilationW: number,
    groups: number,
    out: O,
  ): Ticket;
  conv2dGrad(
    dout: O,
    x: O,
    weight: O,
    strideH: number,
    strideW: number,
    paddingH: number,
    paddingW: number,
    dilationH: number,
    dilationW: number,
    groups: number,
    dx: Opt,
    dweight: Opt,
    dbias: Opt,
  ): Ticket;
  maxPool2d(
    x: O,
    kernelH: number,
    kernelW: number,
    strideH: number,
    strideW: number,
    paddingH: number,
    paddingW: number,
    out: O,
    indices: O,
  ): Ticket;
  maxPool2dGrad(dout: O, indices: O, dx: O): Ticket;
  avgPool2d(
    x: O,
    kernelH: number,
    kernelW: number,
    strideH: number,
    strideW: number,
    paddingH: number,
    paddingW: number,
    out: O,
  ): Ticket;
  avgPool2dGrad(
    dout: O,
    kernelH: number,
    kernelW: number,
    strideH: number,
    strideW: number,
    paddingH: number,
    paddingW: number,
    dx: O,
  ): Ticket;
  crossEntropy(
    logits: O,
    targets: O,
    ignoreIndex: number,
    labelSmoothing: number,
    zLoss: number,
    softcap: number,
    loss: O,
    stats: O,
    ce: O,
    lse: O,
  ): Ticket;
  crossEntropyGrad(
    dloss: O,
    logits: O,
    targets: O,
    stats: O,
    lse: O,
    ignoreIndex: number,
    labelSmoothing: number,
    zLoss: number,
    softcap: number,
    dlogits: O,
  ): Ticket;
  linearCrossEntropy(
    hidden: O,
    weight: O,
    targets: O,
    ignoreIndex: number,
    labelSmoothing: number,
    zLoss: number,
    softcap: number,
    loss: O,
    stats: O,
    ce: O,
    dhidden: Opt,
    dweight: Opt,
  ): Ticket;
  attention(
    q: O,
    k: O,
    v: O,
    qDoc: Opt,
    kDoc: Opt,
    prefix: Opt,
    scale: number,
    causal: boolean,
    window: number,
    qOffset: number,
    softcap: number,
    o: O,
    lse: O,
  ): Ticket;
  decodeAttention(
    q: O,
    k: O,
    v: O,
    keys: readonly O[],
    values: readonly O[],
    offsets: readonly number[],
    positions: O,
    cos: Opt,
    sin: Opt,
    interleaved: boolean,
    scale: number,
    window: number,
    softcap: number,
    o: O,
  ): Ticket;
  attentionGrad(
    dout: O,
    dlse: Opt,
    q: O,
    k: O,
    v: O,
    o: O,
    lse: O,
    qDoc: Opt,
    kDoc: Opt,
    prefix: Opt,
    scale: number,
    causal: boolean,
    window: number,
    qOffset: number,
    softcap: number,
    cos: Opt,
    sin: Opt,
    interleaved: boolean,
    dq: O,
    dk: O,
    dv: O,
  ): Ticket;
  simplicialAttention(
    q: O,
    k1: O,
    k2: O,
    v1: O,
    v2: O,
    scale: number,
    causal: boolean,
    w1: number,
    w2: number,
    k2Bias: number,
    v2Bias: number,
    qOffset: number,
    k1Offset: number,
    k2Offset: number,
    determinant: boolean,
    o: O,
    lse: O,
  ): Ticket;
  simplicialAttentionGrad(
    dout: O,
    q: O,
    k1: O,
    k2: O,
    v1: O,
    v2: O,
    o: O,
    lse: O,
    scale: number,
    causal: boolean,
    w1: number,
    w2: number,
    k2Bias: number,
    v2Bias: number,
    qOffset: number,
    k1Offset: number,
    k2Offset: number,
    determinant: boolean,
    dq: O,
    dk1: O,
    dk2: O,
    dv1: O,
    dv2: O,
  ): Ticket;
  eigh(a: O, values: O, vectors: O): Ticket;
  qr(a: O, q: O, r: O): Ticket;
  svd(a: O, u: O, s: O, vh: O): Ticket;
  cholesky(a: O, l: O): Ticket;
  triangularSolve(l: O, b: O, upper: boolean, transposed: boolean, left: boolean, x: O): Ticket;
  globalNorm(xs: readonly O[], norm: O): Ticket;
  optimizerStep(
    rule: UpdateRule,
    params: readonly O[],
    copies: readonly O[],
    grads: readonly O[],
    states: readonly O[],
    factors: readonly Scalar[],
    gradScale: Opt,
  ): Ticket;
  sonewStep(
    params: readonly O[],
    copies: readonly O[],
    grads: readonly O[],
    m: readonly O[],
    /** The main diagonals of all tensors, then the first super-diagonals, … */
    diagonals: readonly O[],
    rms: readonly O[],
    chainLength: readonly number[],
    roundingIds: readonly number[],
    gradScale: Opt,
    lr: Scalar,
    beta1: number,
    beta2: number,
    eps: number,
    relativeEps: boolean,
    gamma: number,
    absoluteGamma: boolean,
    isolate: boolean,
    graft: number,
    graftEps: number,
    biasCorrection: boolean,
    weightDecay: number,
    step: Scalar,
    seed: number,
    dropped: Opt,
  ): Ticket;
}

export interface NativeMemory {
  /** Arrays of this thread that have not been released. */
  handles: number;
  /** Bytes in use by all threads of the process, rounded up to the allocator's size classes. */
  liveBytes: number;
  peakBytes: number;
  /** Free blocks held for reuse. */
  cachedBytes: number;
  /** Blocks ever asked from the system; constant in a steady state. */
  systemAllocations: number;
}

export interface NativeInfo {
  /** Instruction set whose kernels are in use. */
  isa: string;
  /** Instruction sets that this binary has and this CPU runs, best first. */
  availableIsas: string[];
  numThreads: number;
  /** Version of the C++ compiler. */
  compiler: string;
}

export interface CudaDevice {
  name: string;
  memoryBytes: number;
  /** Compute capability, such as "9.0". */
  capability: string;
  /** The newest CUDA that the driver knows, as 1000 · major + 10 · minor. */
  driver: number;
}

type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array;

/** What the addon exports. */
export interface Binding {
  /**
   * A new array with undefined contents on device 0, the CPU, or 1 + i, CUDA device i. Calls run on the device of their arrays, which must
   * be on one; typed arrays go with arrays on the CPU.
   */
  create(device: number, dtype: number, ...shape: readonly number[]): Handle;
  /** `offset` and strides in elements from the start of `base`. */
  view(base: Handle, dtype: number, offset: number, ...shapeAndStrides: readonly number[]): Handle;
  release(handle: Handle): void;
  /** Whether another handle names (part of) the same memory. */
  isShared(handle: Handle): boolean;
  /** Whether another handle names some of the same elements, or ones that lie between them. */
  isOverlapped(handle: Handle): boolean;
  /** Elements from the first of `a` to the first of `b`; undefined if they don't name (parts of) the same memory. */
  distance(a: Handle, b: Handle): number | undefined;
  /** Whether two handles name (part of) the same memory. */
  haveSharedMemory(a: Handle, b: Handle): boolean;
  upload(handle: Handle, data: TypedArray, dtype: number): void;
  read<T extends TypedArray>(handle: Handle, into: T): Promise<T>;
  /**
   * Measures every call on a device from here on (or no longer), and returns what the calls took since the last time that they were measured.
   * Waits for all queued work.
   */
  measureOps(device: number, on: boolean): { op: string; calls: number; milliseconds: number }[];
  readSync<T extends TypedArray>(handle: Handle, into: T): T;
  /** Copies between arrays of one dtype and shape on two devices; queued on both. */
  transfer(from: Handle, to: Handle): void;
  /** From here on kernels on the device are not queued but added to a new program, in whose memory new arrays are; nothing else may be asked of it. */
  recordProgram(device: number): void;
  /** The program that was recorded, by number, or (`keep` false) 0 and it is forgotten. */
  endProgram(keep: boolean): number;
  /** Makes a program ready to run, which then takes as many numbers. @throws the error of a call that can't be repeated */
  compileProgram(program: number, numbers: Float64Array): void;
  /** Queues all its calls with these numbers. */
  runProgram(program: number, numbers: Float64Array): void;
  /** Gives up its memory when what was queued has run. */
  releaseProgram(program: number): void;
  // Of a device; default the CPU.
  synchronize(device?: number): Promise<void>;
  /** Milliseconds on the device's clock when all work that was queued before had been computed; differences mean something. */
  clock(device: number, into: Float64Array): Promise<Float64Array>;
  memory(device?: number): NativeMemory;
  resetPeak(device?: number): void;
  emptyCache(device?: number): void;
  /** Where the CUDA library may be, in order. It is loaded when it is first needed. */
  setCudaLibraries(paths: readonly string[]): void;
  /** The GPUs. @throws ERR_DEVICE with the reason if there are none to be had: no library, no driver, one that is too old, no GPU */
  cudaDevices(): CudaDevice[];
  info(): NativeInfo;
  setErrorFactory(factory: typeof errorFromNative): void;
  readonly op: KernelTable;
}
