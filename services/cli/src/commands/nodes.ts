import * as Effect from "effect/Effect";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { nodes } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { table } from "../terminal/table.ts";

const COLUMNS = [
  { title: "NODE" },
  { title: "WORKERS", align: "right" },
  { title: "VERSION" },
  { title: "PROTOCOL" },
  { title: "GUESTS" },
] as const;

export const nodesCommand = command({
  operands: NO_OPERANDS,
  options: natsOptions,
  run: ({ values }) =>
    onNats(
      values,
      Effect.map(nodes({}), (all) => {
        const rows = all.map((node) => [
          node.node,
          String(node.workers),
          node["godwit-version"] || "-",
          node.protocol ?? "-",
          node.error ?? node.guests.map(({ name, state }) => `${name} (${state})`).join(", "),
        ]);
        return { document: all, text: all.length === 0 ? "no node is up\n" : table(COLUMNS, rows) };
      }),
    ),
});
