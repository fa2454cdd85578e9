import { describe, expect, it } from "vitest";
import * as errors from "./errors.js";
import { DTypeError, errorFromNative, IndexOutOfRangeError, LlmeffError, nativeOrigin, ShapeError } from "./errors.js";

const codes = {
  ShapeError: "ERR_SHAPE",
  DTypeError: "ERR_DTYPE",
  DeviceError: "ERR_DEVICE",
  DisposedError: "ERR_DISPOSED",
  OptionError: "ERR_OPTION",
  IndexOutOfRangeError: "ERR_INDEX",
  FormatError: "ERR_FORMAT",
  IoError: "ERR_IO",
  NonFiniteError: "ERR_NON_FINITE",
  LinearAlgebraError: "ERR_LINALG",
  OutOfMemoryError: "ERR_OUT_OF_MEMORY",
  NativeLoadError: "ERR_NATIVE_LOAD",
} as const;

describe("error classes", () => {
  it.each(Object.entries(codes))("%s has the code %s, its own name, and a cause", (name, code) => {
    const ErrorClass = { ...errors }[name as keyof typeof codes];
    const cause = new Error("below");
    const error = new ErrorClass("[here] message.", { cause });
    expect(error).toBeInstanceOf(LlmeffError);
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ code, name, cause, message: "[here] message." });
    expect(error.stack).toContain(`${name}: [here] message.`);
  });
});

describe("errorFromNative", () => {
  it("chooses the class by the code, names the operation once, and remembers the call", () => {
    const error = errorFromNative("ERR_INDEX", "id 5 is outside", "embedding", 17);
    expect(error).toBeInstanceOf(IndexOutOfRangeError);
    expect(error.message).toBe("[embedding] id 5 is outside");
    expect(nativeOrigin(error)).toEqual({ op: "embedding", ticket: 17 });
    expect(errorFromNative("ERR_SHAPE", "[native] has a name", "view", 0)).toMatchObject({
      message: "[native] has a name",
    });
    expect(errorFromNative("ERR_SHAPE", "x", "view", 0)).toBeInstanceOf(ShapeError);
    expect(nativeOrigin(new DTypeError("mine"))).toBeUndefined();
  });

  it("keeps codes that it doesn't know", () => {
    expect(errorFromNative("ERR_INTERNAL", "odd", "copy", 0)).toMatchObject({
      code: "ERR_INTERNAL",
      name: "LlmeffError",
    });
  });
});
