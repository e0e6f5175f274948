/** What QEMU's monitor says, one JSON object a line: how a byte stream becomes lines, and lines become messages. */

/** QEMU's version as its greeting states it. */
export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** What the distribution calls its build; often empty. */
  readonly package: string;
}

export type QmpMessage =
  | { readonly kind: "greeting"; readonly version: QmpVersion }
  | { readonly kind: "event"; readonly name: string; readonly data: unknown }
  /** `id` is whatever the command carried that it answers, which may be another client's; undefined when that carried none. */
  | { readonly kind: "return"; readonly id: unknown; readonly value: unknown }
  /** `id` is undefined also when QEMU could not read the command that it answers. */
  | { readonly kind: "error"; readonly id: unknown; readonly errorClass: string; readonly text: string };

/** The longest line taken from a monitor, bytes. The longest answer asked for here is below 64 KiB; a whole `query-qmp-schema` has 250 KiB. */
export const QMP_LINE_BYTES_MAX = 4 * 1024 * 1024;

type Fields = Readonly<Record<string, unknown>>;

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Reads one line; null when it is no QMP message. */
export const parseQmpMessage = (line: string): QmpMessage | null => {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    // Not JSON is one of the ways of being no message.
    return null;
  }
  if (!isFields(value)) return null;
  if (isFields(value["QMP"])) return greetingOf(value["QMP"]);
  if (typeof value["event"] === "string") return { kind: "event", name: value["event"], data: value["data"] ?? {} };
  const id = value["id"];
  if (isFields(value["error"])) {
    const { class: errorClass, desc } = value["error"];
    return { kind: "error", id, errorClass: String(errorClass), text: String(desc) };
  }
  if ("return" in value) return { kind: "return", id, value: value["return"] };
  return null;
};

const greetingOf = (qmp: Fields): QmpMessage | null => {
  const version = qmp["version"];
  if (!isFields(version) || !isFields(version["qemu"])) return null;
  const { major, minor, micro } = version["qemu"];
  if (typeof major !== "number" || typeof minor !== "number" || typeof micro !== "number") return null;
  return { kind: "greeting", version: { major, minor, micro, package: String(version["package"] ?? "") } };
};

/** Cuts a byte stream into lines. `push` returns the lines that are complete now, or null once a line is longer than allowed. */
export const lineSplitter = (lineBytesMax: number) => {
  let parts: Buffer[] = [];
  let partsBytes = 0;
  return {
    push: (chunk: Buffer): ReadonlyArray<string> | null => {
      const lines: string[] = [];
      let start = 0;
      for (;;) {
        const end = chunk.indexOf(0x0a, start);
        const part = chunk.subarray(start, end < 0 ? chunk.length : end);
        partsBytes += part.length;
        if (partsBytes > lineBytesMax) return null;
        parts.push(part);
        if (end < 0) return lines;
        // Decoded as a whole line, so that no character is cut in two.
        const line = Buffer.concat(parts).toString("utf8").trim();
        if (line !== "") lines.push(line);
        parts = [];
        partsBytes = 0;
        start = end + 1;
      }
    },
  };
};
