/** VFIO devices of a migration as lines: for each device and side where it is, what of its stream went, and its arcs in order. */
import { formatBytes, formatMs } from "./format.ts";

export interface DeviceSide {
  readonly side: "source" | "destination";
  /** By the uAPI's name. */
  readonly state: string;
  /** Of its stream: acknowledged (source), or written to the device (destination), bytes. */
  readonly movedBytes: number;
  /** What it is known to owe still, bytes. */
  readonly leftBytes: number;
  /** What the initial data takes of the stream, bytes; absent: not known, or not all of it was read. */
  readonly initialBytes?: number;
  /** At the destination, of a device with initial data: whether it has loaded that. */
  readonly initialLoaded?: boolean;
  readonly arcs: ReadonlyArray<{ readonly from: string; readonly to: string; readonly ms: number }>;
}

export interface DeviceTimeline {
  readonly device: string;
  readonly provider: string;
  readonly sides: ReadonlyArray<DeviceSide>;
}

const INDENT = "  ";
/** The longest name of a side, so that what is said of both stands below each other. */
const SIDE_WIDTH = "destination".length;

const sideText = ({ side, state, movedBytes, leftBytes, initialBytes, initialLoaded }: DeviceSide): string =>
  [
    state,
    `${formatBytes(movedBytes)} ${side === "source" ? "sent" : "written"}`,
    ...(leftBytes > 0 ? [`${formatBytes(leftBytes)} left`] : []),
    ...(side === "source" && initialBytes !== undefined ? [`initial data ${formatBytes(initialBytes)}`] : []),
    ...(initialLoaded === undefined ? [] : [`initial data ${initialLoaded ? "" : "NOT "}loaded`]),
  ].join(", ");

/** `RUNNING -> PRE_COPY 1.20 ms -> STOP_COPY 3.10 ms`; a reset, which is no arc, begins anew behind a semicolon. */
export const arcsText = (arcs: DeviceSide["arcs"]): string => {
  let at: string | null = null;
  let text = "";
  for (const { from, to, ms } of arcs) {
    if (at !== from) text += `${at === null ? "" : "; "}${from}`;
    text += ` -> ${to} ${formatMs(ms)}`;
    at = to;
  }
  return text;
};

/** Lines without their line ends; none without devices. */
export const deviceLines = (devices: ReadonlyArray<DeviceTimeline>): ReadonlyArray<string> =>
  devices.flatMap(({ device, provider, sides }) => [
    `device ${device} (${provider})`,
    ...sides.flatMap((side) => [
      `${INDENT}${side.side.padEnd(SIDE_WIDTH)}${INDENT}${sideText(side)}`,
      ...(side.arcs.length === 0 ? [] : [`${" ".repeat(SIDE_WIDTH)}${INDENT}${INDENT}${arcsText(side.arcs)}`]),
    ]),
  ]);
