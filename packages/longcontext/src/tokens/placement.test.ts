import { Random } from "@llmeff/data";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { gapOf, interleaved, type Placement, positionsFor } from "./placement.js";

/** The order as text: capitals are items, digits units. */
function order(placement: Placement, items: number, units: number): string {
  let text = "";
  const positions = positionsFor("test", placement, items, new Random(1, "placement"));
  for (const [kind, k] of interleaved(positions, units)) text += kind === "item" ? "ABCDEFGH"[k] : String(k);
  return text;
}

describe("positionsFor", () => {
  it("puts items before unit floor(v (n + 1))", () => {
    expect(order({ adjacent: 0 }, 3, 4)).toBe("ABC0123");
    expect(order({ adjacent: 1 }, 3, 4)).toBe("0123ABC");
    expect(order({ adjacent: 0.5 }, 2, 4)).toBe("01AB23");
    expect(order({ depths: [0, 0.5, 1] }, 3, 4)).toBe("A01B23C");
    expect(order("interspersed", 3, 7)).toBe("01A23B45C6");
    expect(order("uniform", 2, 0)).toBe("AB");
  });

  it("keeps every item and unit, in order", () => {
    fc.assert(
      fc.property(fc.nat(8), fc.nat(9), (items, units) => {
        const text = order("uniform", items, units);
        expect(text.replace(/\d/g, "")).toBe("ABCDEFGH".slice(0, items));
        expect(text.replace(/\D/g, "")).toBe("0123456789".slice(0, units));
      }),
    );
    expect(gapOf(1, 5)).toBe(5);
  });

  it("refuses depths outside [0, 1], out of order, or of another number", () => {
    const random = new Random(1, "placement");
    for (const placement of [{ adjacent: 1.1 }, { adjacent: Number.NaN }, { depths: [0.5, -1] }] as Placement[]) {
      expect(() => positionsFor("niah", placement, 2, random)).toThrow(/\[niah\] a depth must be/);
    }
    for (const placement of [{ depths: [0.5, 0.2] }, { depths: [0.5] }] as Placement[]) {
      expect(() => positionsFor("niah", placement, 2, random)).toThrow(/2 ascending numbers/);
    }
  });
});
