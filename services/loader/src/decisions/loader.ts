/** All migrations that arrive at one loader process, which of them a command is for, and how each stands. */
import type { DestinationCommand, DestinationPhase, DestinationReport, Epoch, Incarnation } from "@godwit/protocol";
import { makeDestination } from "./destination.ts";
import type { Destination, DestinationEvent } from "./destination-state.ts";

export interface Loader {
  readonly node: string;
  readonly incarnation: string;
  readonly destinations: Map<string, Destination>;
}

export type Routed =
  | { readonly _tag: "Begin"; readonly destination: Destination }
  | { readonly _tag: "Step"; readonly destination: Destination; readonly event: DestinationEvent }
  | { readonly _tag: "Show"; readonly destination: Destination }
  | { readonly _tag: "Answer"; readonly report: DestinationReport }
  | { readonly _tag: "Ignore" };

const isOver = (destination: Destination): boolean =>
  destination.phase._tag === "Running" || destination.phase._tag === "Failed";

const phaseOf = (destination: Destination): DestinationPhase => {
  switch (destination.phase._tag) {
    case "Preparing":
      return "preparing";
    case "Ready":
      return "ready";
    case "Loading":
      return "loading";
    case "Committing":
    case "Starting":
      return "committing";
    case "Closing":
    case "Running":
      return "running";
    case "Discarding":
    case "Failed":
      return "failed";
  }
};

export const reportOf = (destination: Destination): DestinationReport => ({
  migration: destination.migration as DestinationReport["migration"],
  term: destination.term,
  incarnation: destination.incarnation as Incarnation,
  phase: phaseOf(destination),
  epoch: destination.epoch as Epoch,
  round: destination.fence.round,
  "dropped-packets": destination.fence.dropped,
  ...(destination.failure === null ? {} : { failure: destination.failure }),
});

export const route = (loader: Loader, command: DestinationCommand, now: number): Routed => {
  const destination = loader.destinations.get(command.migration);
  if (destination !== undefined) {
    // An old coordinator that woke up (R7).
    if (command.term < destination.term) return { _tag: "Ignore" };
    destination.term = command.term;
  }
  if (command._tag === "Prepare") return prepare(loader, destination, command, now);
  if (destination === undefined) return { _tag: "Answer", report: unknownReport(loader, command) };
  switch (command._tag) {
    case "Inspect":
      return { _tag: "Show", destination };
    case "Abandon":
      return { _tag: "Step", destination, event: { _tag: "Abandon", failure: command.failure } };
    case "Conclude":
      return { _tag: "Step", destination, event: { _tag: "Concluded" } };
  }
};

const unknownReport = (loader: Loader, command: DestinationCommand): DestinationReport => ({
  migration: command.migration,
  term: command.term,
  incarnation: loader.incarnation as Incarnation,
  phase: "unknown",
  epoch: 0,
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
  for (const other of loader.destinations.values()) {
    if (other.guest !== command.guest || isOver(other)) continue;
    // An older attempt, or an older migration, of the same guest: it ends first, and the command is said again.
    return {
      _tag: "Step",
      destination: other,
      event: {
        _tag: "Abandon",
        failure: {
          code: "fenced",
          actor: "loader",
          side: "destination",
          step: "receive pages",
          reason: `epoch ${other.epoch} was fenced off by epoch ${command.epoch}`,
        },
      },
    };
  }
  const destination = makeDestination({
    migration: command.migration,
    guest: command.guest,
    node: loader.node,
    incarnation: loader.incarnation,
    epoch: command.epoch,
    term: command.term,
    offer: command.offer,
    now,
  });
  loader.destinations.set(command.migration, destination);
  return { _tag: "Begin", destination };
};
