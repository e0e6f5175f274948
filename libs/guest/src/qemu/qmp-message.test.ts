import { describe, expect, it } from "vitest";
import { lineSplitter, parseQmpMessage } from "./qmp-message.ts";

describe("parseQmpMessage", () => {
  it("reads a greeting, an event, an answer and a refusal", () => {
    expect(
      parseQmpMessage(
        '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}',
      ),
    ).toEqual({ kind: "greeting", version: { major: 10, minor: 0, micro: 2, package: "" } });
    expect(parseQmpMessage('{"timestamp": {}, "event": "MIGRATION", "data": {"status": "setup"}}')).toEqual({
      kind: "event",
      name: "MIGRATION",
      data: { status: "setup" },
    });
    expect(parseQmpMessage('{"return": [1], "id": 7}')).toEqual({ kind: "return", id: 7, value: [1] });
    expect(parseQmpMessage('{"id": "godwit/7", "error": {"class": "GenericError", "desc": "no"}}')).toEqual({
      kind: "error",
      id: "godwit/7",
      errorClass: "GenericError",
      text: "no",
    });
  });

  it("takes answers without an id: to a command that QEMU could not read, or of a client that gave none", () => {
    expect(parseQmpMessage('{"error": {"class": "GenericError", "desc": "JSON parse error"}}')).toMatchObject({
      kind: "error",
      id: undefined,
    });
    expect(parseQmpMessage('{"return": {}}')).toEqual({ kind: "return", id: undefined, value: {} });
  });

  it.each(["", "null", "[]", "17", "{", "{}", '{"QMP": {}}', "HTTP/1.1 400 Bad Request"])(
    "does not take %j for a message",
    (line) => {
      expect(parseQmpMessage(line)).toBeNull();
    },
  );
});

describe("lineSplitter", () => {
  it("puts lines together wherever the stream was cut, also within a character", () => {
    const bytes = Buffer.from("eins\r\nzwölf\n\ndrei\n");
    for (let cut = 0; cut <= bytes.length; cut++) {
      const splitter = lineSplitter(100);
      const lines = [splitter.push(bytes.subarray(0, cut)), splitter.push(bytes.subarray(cut))].flat();
      expect(lines).toEqual(["eins", "zwölf", "drei"]);
    }
  });

  it("gives up on a line that is too long, also when it never ends", () => {
    expect(lineSplitter(4).push(Buffer.from("1234\n"))).toEqual(["1234"]);
    expect(lineSplitter(4).push(Buffer.from("12345\n"))).toBeNull();
    const endless = lineSplitter(4);
    expect(endless.push(Buffer.from("123"))).toEqual([]);
    expect(endless.push(Buffer.from("45"))).toBeNull();
  });
});
