import type { MigrationInfo, VfioDeviceInfo } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { deviceBytesOf, timelinesOf } from "./devices-view.ts";
import { progressOf } from "./migration-view.ts";
import { fieldsText } from "./status-text.ts";

const device = (name: string, more: Partial<VfioDeviceInfo> = {}): VfioDeviceInfo => ({
  device: name,
  provider: "simulated",
  state: "PRE_COPY",
  "initial-bytes": 0,
  "dirty-bytes": 0,
  "stop-copy-bytes": 0,
  transferred: 0,
  queued: 0,
  arcs: [{ from: "RUNNING", to: "PRE_COPY", ms: 1 }],
  "switchover-ms": 0,
  ...more,
});
const info = (vfio?: MigrationInfo["vfio"]): MigrationInfo =>
  ({
    migration: "0123456789abcdef",
    guest: "vm1",
    status: "active",
    "total-time": 10,
    ram: { total: 1000, remaining: 100, transferred: 900, "dirty-sync-count": 1 },
    ...(vfio === undefined ? {} : { vfio }),
  }) as unknown as MigrationInfo;

const TWO = info({
  transferred: 300,
  source: [
    device("vfio0", { "initial-bytes": 10, "dirty-bytes": 20, "stop-copy-bytes": 50, queued: 7, transferred: 300 }),
    device("vfio1", { state: "RUNNING", "stop-copy-bytes": 40 }),
  ],
  destination: [device("vfio1", { state: "RESUMING", "initial-loaded": false })],
});

describe("the devices of query-migrate", () => {
  it("count in the progress: what was given and not acknowledged, and the larger word of what is to come", () => {
    assert.deepStrictEqual(deviceBytesOf(TWO), { moved: 300, left: 57 + 40 });
    const progress = progressOf(TWO, null);
    assert.deepInclude(progress, { totalBytes: 1397, remainingBytes: 197, deviceBytesLeft: 97 });
    assert.deepInclude(progressOf(info(), null), { totalBytes: 1000, remainingBytes: 100, deviceBytesLeft: null });
  });

  it("are shown by name, at the sides that have reported", () => {
    assert.deepStrictEqual(
      timelinesOf(TWO).map((one) => [one.device, ...one.sides.map(({ side }) => side)]),
      [
        ["vfio0", "source"],
        ["vfio1", "source", "destination"],
      ],
    );
    assert.deepStrictEqual(timelinesOf(info()), []);
  });

  it("stand last in the text of a status, as timelines", () => {
    const text = fieldsText(TWO);
    assert.include(text, "vfio.transferred: 300\n");
    assert.match(text, /\ndevice vfio1 \(simulated\)\n {2}source .*\n.*\n {2}destination {2}RESUMING, .*NOT loaded\n/);
    assert.notInclude(text, "vfio.source");
    assert.notInclude(fieldsText(info()), "device");
  });
});
