/**
 * Errors of all llmeff packages. Each has a stable `code`; messages follow one pattern:
 * `[where] what was expected, what came, what to do.`
 */
export class LlmeffError extends Error {
  /** Stable name of the kind of error, such as `"ERR_SHAPE"`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** Shapes that do not fit together, or the wrong rank. */
export class ShapeError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_SHAPE", message, options);
  }
}

/** A dtype that the operation does not take, or a mixture of dtypes. */
export class DTypeError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_DTYPE", message, options);
  }
}

/** A device that does not exist, or arguments on different devices. */
export class DeviceError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_DEVICE", message, options);
  }
}

/** Use of a tensor whose memory has been given back. */
export class DisposedError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_DISPOSED", message, options);
  }
}

/** An option or argument with a value outside its domain. */
export class OptionError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_OPTION", message, options);
  }
}

/** An index, such as a token id, outside its range. */
export class IndexOutOfRangeError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_INDEX", message, options);
  }
}

/** A file or message whose content is not what its format demands. */
export class FormatError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_FORMAT", message, options);
  }
}

/** A file that cannot be read or written. */
export class IoError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_IO", message, options);
  }
}

/** A NaN or infinity where a finite number was needed. */
export class NonFiniteError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_NON_FINITE", message, options);
  }
}

/** A matrix that a decomposition does not exist for, such as the Cholesky factor of one that isn't positive definite. */
export class LinearAlgebraError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_LINALG", message, options);
  }
}

/** The device has no memory left. */
export class OutOfMemoryError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_OUT_OF_MEMORY", message, options);
  }
}

/** The native addon could not be loaded. */
export class NativeLoadError extends LlmeffError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_NATIVE_LOAD", message, options);
  }
}

const byCode: Record<string, new (message: string) => LlmeffError> = {
  ERR_SHAPE: ShapeError,
  ERR_DTYPE: DTypeError,
  ERR_DEVICE: DeviceError,
  ERR_DISPOSED: DisposedError,
  ERR_OPTION: OptionError,
  ERR_INDEX: IndexOutOfRangeError,
  ERR_LINALG: LinearAlgebraError,
  ERR_OUT_OF_MEMORY: OutOfMemoryError,
};

/** An error of the engine with the call that caused it; `ticket` is 0 when it happened inside the call itself. */
export interface NativeErrorOrigin {
  op: string;
  ticket: number;
}

const origins = new WeakMap<Error, NativeErrorOrigin>();

/** Which queued call an engine's error comes from, if it comes from one. */
export function nativeOrigin(error: Error): NativeErrorOrigin | undefined {
  return origins.get(error);
}

/** Makes the error object for a code and message of the engine. */
export function errorFromNative(code: string, message: string, op: string, ticket: number): LlmeffError {
  const text = message.startsWith("[") ? message : `[${op}] ${message}`;
  const ErrorClass = byCode[code];
  const error = ErrorClass ? new ErrorClass(text) : new LlmeffError(code, text);
  origins.set(error, { op, ticket });
  return error;
}
