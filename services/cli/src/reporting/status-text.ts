/** Migrations as text: all fields of one, or a line for each of many; saves and restores beside them. */
import type { CheckpointInfo, MigrationInfo } from "@godwit/protocol";
import { deviceLines } from "../terminal/device-timeline.ts";
import { formatBytes, formatMs, formatRate } from "../terminal/format.ts";
import { table } from "../terminal/table.ts";
import { waterfallLines } from "../terminal/waterfall.ts";
import { timelinesOf } from "./devices-view.ts";
import { waterfallOf } from "./waterfall-view.ts";

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const number = (value: number): string => (Number.isInteger(value) ? String(value) : value.toFixed(2));

const lines = (name: string, value: unknown): ReadonlyArray<string> => {
  if (isRecord(value)) return Object.entries(value).flatMap(([key, inner]) => lines(`${name}.${key}`, inner));
  if (Array.isArray(value)) return value.flatMap((inner, index) => lines(`${name}.${index}`, inner));
  return [`${name}: ${typeof value === "number" ? number(value) : String(value)}`];
};

/**
 * One field a line, `ram.remaining: 4096`; the error by its description alone, and first of all what needs attention. Devices come
 * last, as the timelines they are, and then where a downtime went.
 */
export const fieldsText = ({ note, vfio, waterfall, ...info }: MigrationInfo): string => {
  const fields = Object.entries(info).filter(([name]) => name !== "error");
  const transferred = vfio === undefined ? [] : [["vfio.transferred", vfio.transferred] as const];
  return [...(note === undefined ? [] : [["note", note] as const]), ...fields, ...transferred]
    .flatMap(([name, value]) => lines(name, value))
    .concat(deviceLines(timelinesOf({ ...info, ...(vfio === undefined ? {} : { vfio }) })))
    .concat(waterfallLines(waterfallOf(waterfall)))
    .map((line) => `${line}\n`)
    .join("");
};

/** Whose notes a line of a table has no room for. */
const notesText = (list: ReadonlyArray<MigrationInfo>): string =>
  list.map(({ migration, note }) => (note === undefined ? "" : `${migration}: ${note}\n`)).join("");

export const migrationsTable = (list: ReadonlyArray<MigrationInfo>): string =>
  list.length === 0
    ? "there has been no migration yet\n"
    : table(
        [
          { title: "MIGRATION" },
          { title: "GUEST" },
          { title: "FROM" },
          { title: "TO" },
          { title: "STATUS" },
          { title: "TIME", align: "right" },
          { title: "DOWNTIME", align: "right" },
          { title: "SENT", align: "right" },
        ],
        list.map((info) => [
          info.migration,
          info.guest,
          info.source,
          info.destination,
          info.status,
          formatMs(info["total-time"]),
          info.downtime === undefined ? "" : formatMs(info.downtime),
          info.ram === undefined ? "" : formatBytes(info.ram.transferred),
        ]),
      ) + notesText(list);

/** Bits of a megabit in bytes. */
const MEGABIT_BYTES = 1e6 / 8;

/** Saves and restores that are under way, a line for each, and what keeps one from going on; nothing where there are none. */
export const checkpointsTable = (list: ReadonlyArray<CheckpointInfo>): string =>
  list.length === 0
    ? ""
    : table(
        [
          { title: "CHECKPOINT" },
          { title: "" },
          { title: "GUEST" },
          { title: "NODE" },
          { title: "STATUS" },
          { title: "TIME", align: "right" },
          { title: "MOVED", align: "right" },
          { title: "LEFT", align: "right" },
          { title: "RATE", align: "right" },
        ],
        list.map((info) => [
          info.id,
          info.what,
          info.guest,
          info.node,
          info.status,
          formatMs(info["total-time"]),
          formatBytes(info.transferred),
          formatBytes(info.remaining),
          info.mbps === undefined ? "" : formatRate(info.mbps * MEGABIT_BYTES),
        ]),
      ) + list.map(({ id, error }) => (error === undefined ? "" : `${id}: ${error.reason}\n`)).join("");
