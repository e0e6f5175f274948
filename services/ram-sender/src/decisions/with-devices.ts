/** Where the VFIO agent's word, or its silence, decides how a migration goes on. */
import type { SaveReport } from "@godwit/protocol";
import * as Devices from "./devices.ts";
import { devicesReleased, type Emit, fail } from "./ending.ts";
import * as Precopy from "./precopy.ts";
import type { Source } from "./source-state.ts";
import * as Switchover from "./switchover.ts";

/** Devices log their DMA before the first page is read (R3). */
export const beginFirstRound = (source: Source, now: number, emit: Emit): void => {
  if (source.tracker !== null && Devices.isAt(source.devices, "precopy")) Precopy.beginSync(source, now, emit);
};

export const devicesReported = (source: Source, report: SaveReport, now: number, emit: Emit): void => {
  const { devices } = source;
  if (devices === null || report.epoch !== source.epoch || source.phase._tag === "Ended") return;
  const failure = Devices.reported(devices, report, now);
  source.pace.bytesPerSecond = Devices.paceFor(devices, source.parameters["max-bandwidth"]);
  if (failure !== null) fail(source, failure, emit);
  switch (source.phase._tag) {
    case "OpeningTracker":
      return beginFirstRound(source, now, emit);
    case "StoppingDevices":
      if (Devices.isAt(devices, "stopped")) Switchover.devicesStopped(source, now, emit);
      return;
    case "SavingDevices":
      return Switchover.devicesSaved(source, emit);
    case "ReleasingDevices":
      if (Devices.isAt(devices, "resumed")) devicesReleased(source, emit);
      return;
    case "Discarding":
      return maybeEnded(source, now, emit);
    default:
      return;
  }
};

/** The migration has completed; only the agent may not have heard it yet, whose devices are to stop. */
export const guestGone = (source: Source, now: number, emit: Emit): void => {
  source.phase = { _tag: "Discarding", guestIsGone: true };
  maybeEnded(source, now, emit);
};

export const maybeEnded = (source: Source, now: number, emit: Emit): void => {
  const { phase, devices } = source;
  if (phase._tag !== "Discarding" || !phase.guestIsGone) return;
  if (Devices.isAt(devices, "discarded") || (devices !== null && Devices.isOverdue(devices, now))) ended(source, emit);
};

const ended = (source: Source, emit: Emit): void => {
  source.phase = { _tag: "Ended", outcome: source.failure === null ? "completed" : "failed" };
  emit({ _tag: "Report" });
};
