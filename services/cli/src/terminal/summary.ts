import { type DeviceTimeline, deviceLines } from "./device-timeline.ts";
import { formatBytes, formatCount, formatMs } from "./format.ts";
import { type WaterfallLine, waterfallLines } from "./waterfall.ts";

/** How a migration ended. Optional figures are left out of the block, never shown as zero. */
export interface Summary {
  /** QEMU's name: `completed`, `failed`, `cancelled`. */
  readonly status: string;
  readonly totalTimeMs: number;
  readonly downtimeMs?: number;
  /** Where the downtime went; of one that was undone, too. */
  readonly waterfall?: ReadonlyArray<WaterfallLine>;
  readonly rounds: number;
  readonly pagesNormal: number;
  readonly pagesZero: number;
  readonly bytes: number;
  /** Megabits/s (10^6), QEMU's unit. */
  readonly throughputMbps?: number;
  readonly channels: number;
  /** Packets by lane, when another one than NATS was asked for. */
  readonly packets?: { readonly nats: number; readonly direct: number };
  /** Postcopy: pages that vCPUs waited for, how long one of them took, and for how long all vCPUs waited, ms. */
  readonly faults?: {
    readonly pages: number;
    readonly p50: number;
    readonly p99: number;
    readonly max: number;
    readonly blockedMs: number;
  };
  /** How every packet was sealed. */
  readonly cipher?: string;
  readonly verified?: { readonly pages: number; readonly bad: number };
  readonly devices?: ReadonlyArray<DeviceTimeline>;
  /** Devices whose state at the destination was compared with what the source saved, and those of them that differ. */
  readonly devicesVerified?: { readonly devices: number; readonly different: ReadonlyArray<string> };
  /** Why it ended otherwise than `completed`. */
  readonly reason?: string;
}

const plural = (count: number, noun: string): string => `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;

/** The longest label, so that the figures stand below each other. */
const LABEL_WIDTH = 10;
const line = (label: string, text: string): string => `  ${label.padEnd(LABEL_WIDTH)}  ${text}\n`;

/** The block of lines that stands at the end of `godwit migrate`. */
export const renderSummary = (summary: Summary): string => {
  const { downtimeMs, throughputMbps, verified, devicesVerified, reason } = summary;
  const pace = throughputMbps === undefined ? "" : ` at ${formatCount(throughputMbps)} Mbit/s`;
  return [
    `migration ${summary.status}\n`,
    reason === undefined ? "" : line("reason", reason.replaceAll("\n", `\n${" ".repeat(LABEL_WIDTH + 4)}`)),
    line("total time", formatMs(summary.totalTimeMs)),
    downtimeMs === undefined ? "" : line("downtime", formatMs(downtimeMs)),
    line("rounds", formatCount(summary.rounds)),
    line("pages", `${formatCount(summary.pagesNormal)} sent, ${formatCount(summary.pagesZero)} zero`),
    line("sent", `${formatBytes(summary.bytes)}${pace} over ${plural(summary.channels, "channel")}`),
    summary.packets === undefined ? "" : line("lanes", lanesText(summary.packets)),
    summary.cipher === undefined ? "" : line("encrypted", `every packet sealed with ${summary.cipher}`),
    summary.faults === undefined ? "" : line("faults", faultText(summary.faults)),
    verified === undefined ? "" : line("verified", verification(verified)),
    devicesVerified === undefined ? "" : line("devices", deviceVerification(devicesVerified)),
    ...deviceLines(summary.devices ?? []).map((text) => `  ${text}\n`),
    ...waterfallLines(summary.waterfall ?? []).map((text) => `  ${text}\n`),
  ].join("");
};

const lanesText = ({ nats, direct }: NonNullable<Summary["packets"]>): string =>
  `${formatCount(direct)} of ${plural(nats + direct, "packet")} by connections of their own, ${formatCount(nats)} by NATS`;

const faultText = ({ pages, p50, p99, max, blockedMs }: NonNullable<Summary["faults"]>): string =>
  `${plural(pages, "page")} waited for (p50 ${formatMs(p50)}, p99 ${formatMs(p99)}, max ${formatMs(max)}); all vCPUs blocked ${formatMs(blockedMs)}`;

const verification = ({ pages, bad }: { readonly pages: number; readonly bad: number }): string => {
  if (pages === 0) return "nothing was compared";
  return bad === 0 ? `all ${plural(pages, "page")} equal` : `${formatCount(bad)} of ${plural(pages, "page")} DIFFER`;
};

const deviceVerification = ({ devices, different }: NonNullable<Summary["devicesVerified"]>): string => {
  if (devices === 0) return "nothing was compared";
  return different.length === 0
    ? `all bytes equal (${plural(devices, "device")}: what was loaded is what was saved)`
    : `${different.join(", ")} of ${plural(devices, "device")} DIFFER`;
};
