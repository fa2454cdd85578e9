import { byteTokenizer, characterTokenizer, huggingFaceTokenizer } from "@llmeff/data";
import { describe, expect, it } from "vitest";
import { AgreementError, requireAgreement, type TokenIdentity, tokenIdentity } from "./agreement.js";

const json = (extra: object = {}, vocab: Record<string, number> = { a: 0, b: 1, ab: 2, "<s>": 3 }) => ({
  added_tokens: [{ id: vocab["<s>"]!, content: "<s>", special: true }],
  model: { type: "BPE", vocab, merges: ["a b"] },
  ...extra,
});
const identity = (file: object) => tokenIdentity(huggingFaceTokenizer(file), Buffer.from(JSON.stringify(file)));

function difference(student: TokenIdentity, teacher: TokenIdentity, options = {}): AgreementError | undefined {
  try {
    requireAgreement(student, teacher, options);
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(AgreementError);
    return error as AgreementError;
  }
}

describe("requireAgreement", () => {
  const own = identity(json());

  it("accepts the same tokenizer, and another file that says the same", () => {
    expect(difference(own, identity(json()))).toBeUndefined();
    const reordered = identity(json({ version: "1.0" }, { "<s>": 3, ab: 2, b: 1, a: 0 }));
    expect(reordered.fileHash).not.toBe(own.fileHash);
    expect(difference(own, reordered)).toBeUndefined();
  });

  it("names the first difference and both values", () => {
    const swapped = identity(json({}, { a: 1, b: 0, ab: 2, "<s>": 3 }));
    expect(difference(own, swapped)?.field).toBe("tokenizer");
    const larger = identity(json({}, { a: 0, b: 1, ab: 2, "<s>": 3, c: 4 }));
    expect(difference(own, larger)?.message).toBe(
      "[requireAgreement] vocabulary size differs: the student has 4 and the teacher 5. Distil by the teacher's generations instead (sequence-level), for which tokenizers may differ.",
    );
    expect(difference(larger, own)).toMatchObject({ student: 5, teacher: 4, code: "ERR_AGREEMENT" });
    expect(difference(larger, own)?.message).toContain("Set vocabPad");
    expect(difference(larger, own, { vocabPad: true })).toBeUndefined();
    expect(difference(own, larger, { vocabPad: true })?.field).toBe("vocabulary size");
    const padding = { ...own, vocabSize: 64 }; // of the model; its tokenizer is the same
    expect(difference(padding, own, { vocabPad: true })).toBeUndefined();
    const otherPieces = identity(json({}, { b: 0, a: 1, ab: 2, "<s>": 3, c: 4 }));
    expect(difference(otherPieces, own, { vocabPad: true })?.field).toBe("tokenizer");
    const moved = { ...own, specialIds: { "<s>": 2 } };
    expect(difference(own, moved)).toMatchObject({ field: "special token <s>", student: 3, teacher: 2 });
    expect(difference(own, { ...own, specialIds: {} })).toMatchObject({ field: "special token <s>", teacher: null });
    expect(difference({ ...own, seqLen: 9 }, { ...own, seqLen: 8 })?.field).toBe("sequence length");
    expect(difference({ ...own, seqLen: 8 }, { ...own, seqLen: 9 })).toBeUndefined();
    expect(difference({ ...own, positionOffset: 2 }, own)).toMatchObject({
      field: "position offset",
      student: 2,
      teacher: 0,
    });
  });

  it("tells byte and character tokenizers apart", () => {
    const bytes = tokenIdentity(byteTokenizer());
    expect(difference(bytes, tokenIdentity(byteTokenizer()))).toBeUndefined();
    const [first, second] = ["abc", "abd"].map((text) => tokenIdentity(characterTokenizer(text)));
    expect(difference(first!, second!)?.field).toBe("tokenizer");
    expect(difference(bytes, first!, { vocabPad: true })?.field).toBe("tokenizer");
  });
});
