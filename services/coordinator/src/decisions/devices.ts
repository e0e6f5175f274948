/** The guest's VFIO devices, as the reports of both sides show them. */
import type { VfioInfo } from "@godwit/protocol";
import { type DevicesAtPass, NO_DEVICES } from "./convergence.ts";
import type { Migration } from "./migration-state.ts";

export const devicesOf = (migration: Migration): DevicesAtPass => {
  const { sourceReport, destinationReport, capabilities } = migration;
  if ((sourceReport?.offer?.devices ?? []).length === 0) return NO_DEVICES;
  const atSource = sourceReport?.verdict?.devices;
  // They load and start side by side.
  const startMs = (destinationReport?.devices ?? []).reduce((most, info) => Math.max(most, info["switchover-ms"]), 0);
  return {
    remaining: atSource?.remaining ?? 0,
    bandwidth: atSource?.bandwidth ?? 0,
    switchoverMs: (atSource?.["switchover-ms"] ?? 0) + startMs,
    unacknowledged: capabilities["switchover-ack"] ? (destinationReport?.["switchover-ack"]?.pending ?? null) : [],
  };
};

/** Devices that do not do their work where the guest is now; null: none is known. */
export const deviceNoteOf = (migration: Migration, status: string): string | null => {
  const atDestination = status === "completed";
  const report = atDestination ? migration.destinationReport : migration.sourceReport;
  const node = atDestination ? migration.destination : migration.source;
  // What it said before is not how it ended.
  if (atDestination && report?.phase !== "running") return null;
  const devices = report?.devices ?? [];
  const lost = devices.filter((info) => info["state-lost"] === true).map(({ device }) => device);
  const down = devices.filter(({ state }) => state !== "RUNNING").map(({ device, state }) => `${device} (${state})`);
  const said = [
    lost.length === 0
      ? ""
      : `only a reset brought device ${lost.join(", ")} back to RUNNING: its driver has to begin anew`,
    down.length === 0 ? "" : `device ${down.join(", ")} does not run`,
  ].filter((text) => text !== "");
  return said.length === 0 ? null : `at node ${node} ${said.join("; ")}`;
};

/** `vfio` of query-migrate; absent without devices. */
export const vfioOf = ({ sourceReport, destinationReport }: Migration): { readonly vfio?: VfioInfo } => {
  const source = sourceReport?.devices ?? [];
  if (source.length === 0) return {};
  const transferred = source.reduce((sum, info) => sum + info.transferred, 0);
  return { vfio: { transferred, source, destination: destinationReport?.devices ?? [] } };
};
