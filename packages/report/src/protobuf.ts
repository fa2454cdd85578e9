/**
 * The part of the protocol buffer wire format that event files need: varints, 32- and 64-bit fields, and
 * length-delimited fields (https://protobuf.dev/programming-guides/encoding/).
 */
import { FormatError } from "@llmeff/native/errors";

const WIRE_VARINT = 0;
const WIRE_FIXED64 = 1;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;

/** Collects the fields of one message. */
export class MessageWriter {
  readonly #bytes: number[] = [];

  /** A non-negative integer up to 2^53 - 1; zero is written too. */
  varint(field: number, value: number): this {
    this.#raw(field * 8 + WIRE_VARINT);
    this.#raw(value);
    return this;
  }

  float(field: number, value: number): this {
    this.#raw(field * 8 + WIRE_FIXED32);
    this.#push(new Uint8Array(Float32Array.of(value).buffer));
    return this;
  }

  double(field: number, value: number): this {
    this.#raw(field * 8 + WIRE_FIXED64);
    this.#push(new Uint8Array(Float64Array.of(value).buffer));
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, value: MessageWriter): this {
    return this.bytes(field, value.finish());
  }

  bytes(field: number, value: Uint8Array): this {
    this.#raw(field * 8 + WIRE_BYTES);
    this.#raw(value.length);
    this.#push(value);
    return this;
  }

  finish(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  #raw(value: number): void {
    // Division, not shifts: steps go beyond 32 bits.
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.#bytes.push((rest % 128) + 128);
    this.#bytes.push(rest);
  }

  #push(bytes: Uint8Array): void {
    for (const byte of bytes) this.#bytes.push(byte);
  }
}

/** One field as read: `number` for varints and floats, bytes for everything with a length. */
export interface Field {
  readonly field: number;
  readonly value: number | Uint8Array;
}

/**
 * The fields of a message, in file order.
 *
 * @throws {FormatError} if the bytes are no message
 */
export function* readFields(message: Uint8Array): Generator<Field> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let offset = 0;
  const need = (count: number): number => {
    const start = offset;
    if (!(start + count <= message.length))
      throw new FormatError(`[protobuf] the message ends inside a field, at byte ${start}.`);
    offset = start + count;
    return start;
  };
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; factor < 2 ** 70; factor *= 128) {
      const byte = message[need(1)]!;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw new FormatError(`[protobuf] a varint has more than 10 bytes, at byte ${offset}.`);
  };

  while (offset < message.length) {
    const key = varint();
    const field = Math.floor(key / 8);
    const wire = key % 8;
    if (wire === WIRE_VARINT) yield { field, value: varint() };
    else if (wire === WIRE_FIXED64) yield { field, value: view.getFloat64(need(8), true) };
    else if (wire === WIRE_FIXED32) yield { field, value: view.getFloat32(need(4), true) };
    else if (wire === WIRE_BYTES) {
      const length = varint();
      const start = need(length);
      yield { field, value: message.subarray(start, start + length) };
    } else throw new FormatError(`[protobuf] unknown wire type ${wire} at byte ${offset}.`);
  }
}
