/** `vfio` of query-migrate as the terminal shows it. */
import type { MigrationInfo, VfioDeviceInfo } from "@godwit/protocol";
import type { DeviceSide, DeviceTimeline } from "../terminal/device-timeline.ts";

/** What a device at the source is known to owe: what it has given and nobody has acknowledged, and what it has not given yet. */
const leftBytesOf = (info: VfioDeviceInfo): number =>
  info.queued + Math.max(info["stop-copy-bytes"], info["initial-bytes"] + info["dirty-bytes"]);

/** The source's last report is older than the end of a migration that was completed: then nothing is left, whatever it says. */
const leftOf = (side: DeviceSide["side"], info: VfioDeviceInfo, status: MigrationInfo["status"]): number =>
  status === "completed" ? 0 : side === "source" ? leftBytesOf(info) : info.queued;

const sideOf = (side: DeviceSide["side"], info: VfioDeviceInfo, status: MigrationInfo["status"]): DeviceSide => ({
  side,
  state: info.state,
  movedBytes: info.transferred,
  leftBytes: leftOf(side, info, status),
  ...(info["initial-end"] === undefined ? {} : { initialBytes: info["initial-end"] }),
  ...(info["initial-loaded"] === undefined ? {} : { initialLoaded: info["initial-loaded"] }),
  arcs: info.arcs,
});

/** In the order of the source; none without devices. */
export const timelinesOf = ({ vfio, status }: MigrationInfo): ReadonlyArray<DeviceTimeline> =>
  (vfio?.source ?? []).map((source) => {
    const destination = vfio?.destination.find(({ device }) => device === source.device);
    return {
      device: source.device,
      provider: source.provider,
      sides: [
        sideOf("source", source, status),
        ...(destination === undefined ? [] : [sideOf("destination", destination, status)]),
      ],
    };
  });

/** Bytes of all devices: what went so far, and what is known to be left. */
export const deviceBytesOf = ({ vfio, status }: MigrationInfo): { readonly moved: number; readonly left: number } => ({
  moved: vfio?.transferred ?? 0,
  left: (vfio?.source ?? []).reduce((sum, info) => sum + leftOf("source", info, status), 0),
});
