/** All migrations that arrive at one loader process, which of them a command is for, and how each stands. */
import {
  type DestinationCommand,
  type DestinationPhase,
  type DestinationReport,
  type Epoch,
  encryptionInfo,
  type Failure,
  fieldsOfPostcopy,
  type Incarnation,
  listOfLanes,
  type MigrationInfo,
  obey,
  PAGE_BYTES,
  statusOfPostcopy,
  toError,
  whyNotOurs,
} from "@godwit/protocol";
import { isOver } from "./destination.ts";
import { type Destination, type DestinationEvent, makeDestination } from "./destination-state.ts";
import * as Devices from "./devices.ts";
import * as Fence from "./fence.ts";
import * as Laps from "./laps.ts";

export interface Loader {
  readonly node: string;
  readonly incarnation: string;
  readonly destinations: Map<string, Destination>;
  /** Guests whose leftovers are being removed; what shall arrive waits for that. */
  readonly discarding: Set<string>;
  /** Guests that are being restored from a checkpoint. */
  readonly restoring: Set<string>;
}

export type Routed =
  | { readonly _tag: "Begin"; readonly destination: Destination }
  | { readonly _tag: "Step"; readonly destination: Destination; readonly event: DestinationEvent }
  | { readonly _tag: "Show"; readonly destination: Destination }
  | { readonly _tag: "Answer"; readonly report: DestinationReport }
  | { readonly _tag: "Ignore" }
  /** It is not this migration's coordinator that speaks (R7). */
  | { readonly _tag: "Refuse"; readonly reason: string };

/** Whether neither a migration nor a restore of this process is working on the guest. */
export const isIdle = (loader: Loader, guest: string): boolean =>
  !loader.restoring.has(guest) &&
  ![...loader.destinations.values()].some((destination) => destination.guest === guest && !isOver(destination));

const phaseOf = (destination: Destination): DestinationPhase => {
  switch (destination.phase._tag) {
    case "Preparing":
    case "PreparingDevices":
      return "preparing";
    case "Ready":
      return "ready";
    case "Expecting":
    case "Loading":
    case "Yielding":
      return "loading";
    case "Committing":
    case "StartingDevices":
    case "Starting":
      return "committing";
    case "Paging":
      return "postcopy";
    case "Closing":
      // The source needs its memory until the record says so.
      if (destination.postcopy !== null && destination.failure === null) return "postcopy";
      return destination.failure === null ? "running" : "failed";
    case "Running":
      return "running";
    case "Lost":
    case "Discarding":
    case "Failed":
      return "failed";
  }
};

const devicesOf = ({ devices }: Destination): Pick<DestinationReport, "devices" | "switchover-ack"> => {
  if (devices === null || devices.report === null) return {};
  const ack = Devices.switchoverAckOf(devices);
  return { devices: devices.report.devices, ...(ack === null ? {} : { "switchover-ack": ack }) };
};

/** By this loader and by the VFIO agent of its host. */
const refusedOf = ({ refusedPackets, devices }: Destination): Pick<DestinationReport, "refused-packets"> => {
  if (refusedPackets === null) return {};
  const ofDevices = devices?.report?.["refused-packets"] ?? { replayed: 0, forged: 0 };
  return {
    "refused-packets": {
      replayed: refusedPackets.replayed + ofDevices.replayed,
      forged: refusedPackets.forged + ofDevices.forged,
    },
  };
};

/** To this loader and to the VFIO agent of its host. */
const lanesOf = ({ lanes, devices }: Destination): Pick<DestinationReport, "lanes"> =>
  lanes === null ? {} : { lanes: [...listOfLanes(lanes), ...(devices?.report?.lanes ?? [])] };

const waterfallOf = (destination: Destination): Pick<DestinationReport, "waterfall"> => {
  const waterfall = Laps.waterfallOf(destination);
  return waterfall === null ? {} : { waterfall };
};

export const reportOf = (destination: Destination): DestinationReport => ({
  migration: destination.migration as DestinationReport["migration"],
  term: destination.authority.term,
  incarnation: destination.incarnation as Incarnation,
  phase: phaseOf(destination),
  epoch: destination.epoch as Epoch,
  life: destination.life,
  round: Fence.roundOf(destination.fence),
  "dropped-packets": destination.fence.dropped,
  "parameters-revision": destination.parametersRevision,
  ...refusedOf(destination),
  ...lanesOf(destination),
  ...devicesOf(destination),
  ...waterfallOf(destination),
  ...(destination.postcopy?.info == null ? {} : { postcopy: destination.postcopy.info }),
  ...(destination.postcopy === null ? {} : { word: destination.postcopy.word }),
  ...(destination.failure === null ? {} : { failure: destination.failure }),
});

/** How this side itself sees a migration that is on its way; the ending comes from the coordinator. */
export const infoOf = (destination: Destination, now: number): MigrationInfo => {
  const { fence, failure } = destination;
  const phase = phaseOf(destination);
  const { "refused-packets": refused } = refusedOf(destination);
  const total = destination.offer.blocks.reduce((sum, block) => sum + block["length-bytes"], 0);
  return {
    migration: destination.migration as MigrationInfo["migration"],
    guest: destination.guest,
    source: destination.source,
    destination: destination.node,
    status:
      phase === "preparing"
        ? "setup"
        : phase === "ready"
          ? "active"
          : phase === "failed"
            ? "failed"
            : phase === "running"
              ? "completed"
              : phase === "postcopy"
                ? statusOfPostcopy(destination.postcopy?.info ?? null)
                : "device",
    "total-time": now - destination.startedAt,
    attempts: 1,
    ram: {
      total,
      remaining: destination.postcopy?.info?.remaining ?? 0,
      transferred: fence.wireBytes,
      normal: fence.normalPages,
      duplicate: fence.pages - fence.normalPages,
      "normal-bytes": fence.normalPages * PAGE_BYTES,
      "page-size": PAGE_BYTES,
      "dirty-sync-count": Fence.roundOf(fence),
      "dirty-pages-rate": 0,
      "pages-per-second": 0,
      mbps: 0,
      "multifd-bytes": fence.wireBytes,
      "resent-items": 0,
    },
    ...(refused === undefined ? {} : { encryption: encryptionInfo(refused) }),
    ...(destination.postcopy?.info == null ? {} : fieldsOfPostcopy(destination.postcopy.info)),
    ...(failure === null ? {} : { error: failure, "error-desc": toError(failure).message }),
  };
};

export const route = (loader: Loader, command: DestinationCommand, now: number): Routed => {
  if (command.destination !== loader.node)
    return { _tag: "Refuse", reason: `migration ${command.migration} goes to node ${command.destination}, not here` };
  const destination = loader.destinations.get(command.migration);
  if (destination !== undefined) {
    const reason = whyNotOurs(destination.authority, destination.route, command);
    if (reason !== null) return { _tag: "Refuse", reason };
    obey(destination.authority, command);
  }
  if (command._tag === "Prepare") return prepare(loader, destination, command, now);
  if (destination === undefined) return { _tag: "Answer", report: unknownReport(loader, command) };
  switch (command._tag) {
    case "Inspect":
      return { _tag: "Show", destination };
    case "Abandon":
      // Said to an earlier attempt.
      if (command.epoch < destination.epoch) return { _tag: "Ignore" };
      return { _tag: "Step", destination, event: { _tag: "Abandon", failure: command.failure } };
    case "Pause":
    case "Recover": {
      if (command.epoch !== destination.epoch) return { _tag: "Ignore" };
      const tag = command._tag === "Pause" ? "PauseFetching" : "RecoverFetching";
      return { _tag: "Step", destination, event: { _tag: tag, word: command.word } };
    }
    case "Tune": {
      if (command.epoch !== destination.epoch) return { _tag: "Ignore" };
      const { parameters, "parameters-revision": revision } = command;
      return { _tag: "Step", destination, event: { _tag: "Tune", parameters, revision } };
    }
    case "Conclude":
      return { _tag: "Step", destination, event: { _tag: "Concluded", failure: failureOf(command.info) } };
  }
};

/** Why a migration has ended without its guest having arrived; null when it completed. */
const failureOf = (info: MigrationInfo): Failure | null =>
  info.status === "completed"
    ? null
    : (info.error ?? {
        code: "internal",
        actor: "coordinator",
        step: "conclude",
        reason: `the migration ended as ${info.status}`,
      });

const unknownReport = (loader: Loader, command: DestinationCommand): DestinationReport => ({
  migration: command.migration,
  term: command.term,
  incarnation: loader.incarnation as Incarnation,
  phase: "unknown",
  epoch: 0,
  life: 0,
  round: 0,
  "dropped-packets": 0,
});

const prepare = (
  loader: Loader,
  present: Destination | undefined,
  command: Extract<DestinationCommand, { _tag: "Prepare" }>,
  now: number,
): Routed => {
  if (present !== undefined && present.epoch >= command.epoch) return { _tag: "Show", destination: present };
  if (loader.discarding.has(command.guest) || loader.restoring.has(command.guest)) return { _tag: "Ignore" };
  if (present !== undefined && mayRenew(present, command)) return beginOf(loader, command, now);
  for (const other of loader.destinations.values()) {
    if (other.guest !== command.guest || isOver(other)) continue;
    // The command is the older one, and came late: who holds the lower epoch is fenced off (O1).
    if (other.epoch > command.epoch) return fencedOff(loader, command, other.epoch);
    // An older attempt, or an older migration, of the same guest: it ends first, and the command is said again.
    return {
      _tag: "Step",
      destination: other,
      event: {
        _tag: "Abandon",
        failure: fenced(other.epoch, command.epoch),
      },
    };
  }
  return beginOf(loader, command, now);
};

/**
 * The next attempt of a migration whose incoming guest has only taken pages so far (its sender was restarted): it goes on in the same
 * memory, under the new epoch. Every page is sent again, since the source trusts no dirty bitmap from before (O7).
 */
const mayRenew = (present: Destination, command: Extract<DestinationCommand, { _tag: "Prepare" }>): boolean =>
  present.phase._tag === "Ready" &&
  !present.isListening &&
  present.guest === command.guest &&
  JSON.stringify(present.offer.blocks) === JSON.stringify(command.offer.blocks);

const beginOf = (
  loader: Loader,
  command: Extract<DestinationCommand, { _tag: "Prepare" }>,
  now: number,
): Extract<Routed, { _tag: "Begin" }> => {
  const destination = makeDestination({
    migration: command.migration,
    guest: command.guest,
    node: loader.node,
    source: command.source,
    incarnation: loader.incarnation,
    epoch: command.epoch,
    authority: { term: command.term, coordinator: command.coordinator },
    offer: command.offer,
    parameters: command.parameters,
    parametersRevision: command["parameters-revision"] ?? 0,
    capabilities: command.capabilities,
    now,
  });
  loader.destinations.set(command.migration, destination);
  return { _tag: "Begin", destination };
};

const fenced = (epoch: number, by: number): Failure => ({
  code: "fenced",
  actor: "loader",
  side: "destination",
  step: "receive pages",
  reason: `epoch ${epoch} was fenced off by epoch ${by}`,
});

const fencedOff = (
  loader: Loader,
  command: Extract<DestinationCommand, { _tag: "Prepare" }>,
  by: number,
): Extract<Routed, { _tag: "Answer" }> => ({
  _tag: "Answer",
  report: {
    ...unknownReport(loader, command),
    epoch: command.epoch,
    phase: "failed",
    failure: fenced(command.epoch, by),
  },
});
