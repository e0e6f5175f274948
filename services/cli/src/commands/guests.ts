import * as Effect from "effect/Effect";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { nodes } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { formatBytes } from "../terminal/format.ts";
import { table } from "../terminal/table.ts";

const COLUMNS = [
  { title: "GUEST" },
  { title: "NODE" },
  { title: "STATE" },
  { title: "MEMORY", align: "right" },
  { title: "DRIVER" },
  { title: "MACHINE" },
  { title: "" },
] as const;

export const guests = command({
  operands: NO_OPERANDS,
  options: natsOptions,
  run: ({ values }) =>
    onNats(
      values,
      Effect.map(nodes({}), (all) => {
        const found = all.flatMap(({ node, guests: its }) => its.map((guest) => ({ node, ...guest })));
        const rows = found.map((guest) => [
          guest.name,
          guest.node,
          guest.state,
          formatBytes(guest["memory-bytes"]),
          guest.driver,
          guest.machine,
          guest.error ?? "",
        ]);
        return { document: found, text: found.length === 0 ? "no node has a guest\n" : table(COLUMNS, rows) };
      }),
    ),
});
