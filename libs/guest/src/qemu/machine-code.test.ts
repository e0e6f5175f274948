import { expect, it } from "vitest";
import { address16, address32, assemble, far, near, word } from "./machine-code.ts";

it("fills in addresses and distances, forward and backward", () => {
  const code = assemble(0x7c00, [
    { label: "start", text: "jmp end", code: [0xeb, near("end")] },
    { text: "call end", code: [0xe8, far("end")] },
    { text: "mov edi, start", code: [0xbf, address32("start")] },
    { text: "mov dword [end], -1", code: [0xc7, address16("end"), word(-1)] },
    { label: "end", text: "jmp start", code: [0xeb, near("start")] },
  ]);
  expect(Buffer.from(code).toString("hex")).toBe(
    ["eb11", "e80c000000", "bf007c0000", "c7137cffffffff", "ebeb"].join(""),
  );
});

it("throws on a label that is nowhere, and on a jump that is too far", () => {
  expect(() => assemble(0, [{ text: "jmp x", code: [0xeb, near("x")] }])).toThrow("no label x");
  const distant = { text: "nops", code: new Array<number>(200).fill(0x90) };
  expect(() =>
    assemble(0, [{ text: "jmp end", code: [0xeb, near("end")] }, distant, { label: "end", text: "ret", code: [0xc3] }]),
  ).toThrow("out of reach");
});
