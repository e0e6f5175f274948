import { closeSync, openSync } from "node:fs";
import { resolve } from "node:path";
import {
  builtinState,
  checksumsOf,
  fingerprintOf,
  MalformedCheckpoint,
  parsePlace,
  readCheckpoint,
} from "@godwit/checkpoint";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, type Outcome } from "../arguments/command.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { formatBytes } from "../terminal/format.ts";
import { table } from "../terminal/table.ts";

export const inspect = command({
  operands: { usage: "FILE", min: 1, max: 1 },
  options: {},
  notes: () => "FILE is a path, or file:PATH,offset=BYTES. A file that QEMU wrote with mapped-ram is one, too.\n",
  run: ({ operands: [operand = ""] }) => {
    const place = parsePlace(operand.startsWith("file:") ? operand : `file:${operand}`);
    if ("wrong" in place) throw new UsageError(place.wrong);
    if (place.kind !== "file") throw new UsageError(`${operand} is no file`);
    const { start } = place;
    return Effect.try({ try: () => look(resolve(place.path), start), catch: notReadable });
  },
});

const notReadable = (cause: unknown): GodwitError =>
  new GodwitError({
    code: cause instanceof MalformedCheckpoint ? "bad-checkpoint" : "invalid-parameter",
    actor: "cli",
    step: "read the checkpoint",
    reason: cause instanceof Error ? cause.message : String(cause),
  });

const BLOCKS = [
  { title: "RAMBLOCK" },
  { title: "SIZE", align: "right" },
  { title: "STORED", align: "right" },
  { title: "ZERO", align: "right" },
  { title: "PAGES AT", align: "right" },
] as const;
const SECTIONS = [
  { title: "SECTION" },
  { title: "INSTANCE", align: "right" },
  { title: "VERSION", align: "right" },
] as const;

const look = (path: string, start: number): Outcome => {
  const fd = openSync(path, "r");
  try {
    const found = readCheckpoint(fd, start);
    const isBuiltin = builtinState(found.tail, found.devicesOffset) !== null;
    const { of } = checksumsOf(path, fingerprintOf(found));
    const checksums = of === "none" ? of : `of ${of}`;
    const blocks = found.blocks.map(({ name, lengthBytes, pages, presentPages, pagesOffset }) => ({
      name,
      "length-bytes": lengthBytes,
      "pages-stored": presentPages,
      "pages-zero": pages - presentPages,
      "pages-offset": pagesOffset,
    }));
    const document = {
      file: path,
      whole: true,
      machine: found.machine,
      driver: isBuiltin ? "builtin" : "qemu",
      "file-bytes": found.fileBytes,
      "device-bytes": found.tail.length,
      checksums,
      blocks,
      sections: found.devices,
    };
    const text = [
      `${path}: a whole checkpoint of a ${document.driver} guest, machine ${found.machine}`,
      `${formatBytes(found.fileBytes)} with holes, ${formatBytes(found.tail.length)} of device state; checksums: ${checksums}`,
      "",
      table(
        BLOCKS,
        blocks.map((block) => [
          block.name,
          formatBytes(block["length-bytes"]),
          String(block["pages-stored"]),
          String(block["pages-zero"]),
          `0x${block["pages-offset"].toString(16)}`,
        ]),
      ),
      table(
        SECTIONS,
        found.devices.map(({ name, instance, version }) => [name, String(instance), String(version)]),
      ),
    ].join("\n");
    return { document, text };
  } finally {
    closeSync(fd);
  }
};
