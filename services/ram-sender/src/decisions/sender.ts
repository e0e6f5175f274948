/** All migrations of one RAM sender process, and which of them a command is for. */
import {
  type Capabilities,
  type Failure,
  obey,
  packetPagesWithin,
  type SourceCommand,
  type SourceReport,
  whyNotOurs,
} from "@godwit/protocol";
import { unknownReport } from "./report.ts";
import { makeSource } from "./source.ts";
import type { Source, SourceEvent } from "./source-state.ts";

export interface Sender {
  readonly node: string;
  readonly incarnation: string;
  /** Pages that fit one message of this server. */
  readonly itemPagesMax: number;
  readonly sources: Map<string, Source>;
  /** Guests whose record is being settled after a restart; claims wait for that. */
  readonly recovering: Set<string>;
  /** Guests that are being saved into a checkpoint: their dirty pages are tracked for that. */
  readonly saving: Set<string>;
}

export type Routed =
  | { readonly _tag: "Begin"; readonly source: Source }
  | { readonly _tag: "Step"; readonly source: Source; readonly event: SourceEvent }
  | { readonly _tag: "Show"; readonly source: Source }
  | { readonly _tag: "Answer"; readonly report: SourceReport }
  | { readonly _tag: "Ignore" }
  /** It is not this migration's coordinator that speaks (R7). */
  | { readonly _tag: "Refuse"; readonly reason: string };

const isOver = (source: Source): boolean => source.phase._tag === "Ended";

export const route = (sender: Sender, command: SourceCommand, now: number): Routed => {
  if (command.source !== sender.node)
    return { _tag: "Refuse", reason: `migration ${command.migration} begins at node ${command.source}, not here` };
  const source = sender.sources.get(command.migration);
  if (source !== undefined) {
    const reason = whyNotOurs(source.authority, source.route, command);
    if (reason !== null) return { _tag: "Refuse", reason };
    obey(source.authority, command);
  }
  if (command._tag === "Claim") return claim(sender, source, command, now);
  if (source === undefined) return { _tag: "Answer", report: unknownReport(command, sender.incarnation) };
  switch (command._tag) {
    case "Inspect":
      return { _tag: "Show", source };
    case "Abort":
      // Said to an earlier attempt.
      if (command.attempt < source.attempt) return { _tag: "Ignore" };
      if (isOver(source)) return { _tag: "Show", source };
      return { _tag: "Step", source, event: { _tag: "Abort", failure: command.failure } };
    case "Conclude":
      if (isOver(source)) sender.sources.delete(source.migration);
      return { _tag: "Ignore" };
    case "Start":
      return {
        _tag: "Step",
        source,
        event: {
          _tag: "Start",
          epoch: command.epoch,
          destination: command.destination,
          incarnation: command.incarnation,
          itemPagesMax: packetPagesWithin(command["max-payload"] ?? Number.POSITIVE_INFINITY),
        },
      };
    case "Verdict":
      return {
        _tag: "Step",
        source,
        event: { _tag: "Verdict", epoch: command.epoch, round: command.round, verdict: command.verdict },
      };
    case "StartPostcopy":
      return { _tag: "Step", source, event: { _tag: "StartPostcopy", epoch: command.epoch } };
    case "Continue":
      // Said to an earlier attempt: this one has stopped the guest anew.
      if (command.epoch !== source.epoch) return { _tag: "Ignore" };
      return { _tag: "Step", source, event: { _tag: "Continue" } };
    case "Tune":
      return {
        _tag: "Step",
        source,
        event: { _tag: "Tune", parameters: command.parameters, revision: command["parameters-revision"] },
      };
  }
};

/** Why a guest cannot be moved, or saved, now; null when nothing else has it in hand. */
export const guestBusy = (sender: Sender, guest: string, migration: string | null): Failure | null => {
  const busy = (reason: string): Failure => ({
    code: "migration-in-progress",
    actor: "ram-sender",
    side: "source",
    step: "claim the guest",
    reason,
  });
  if (sender.saving.has(guest)) return busy(`guest ${guest} is being saved into a checkpoint`);
  for (const other of sender.sources.values()) {
    if (other.guest === guest && other.migration !== migration && !isOver(other))
      return busy(`guest ${guest} is being moved by migration ${other.migration}`);
  }
  return null;
};

const claim = (
  sender: Sender,
  present: Source | undefined,
  command: Extract<SourceCommand, { _tag: "Claim" }>,
  now: number,
): Routed => {
  if (sender.recovering.has(command.guest)) return { _tag: "Ignore" };
  if (present !== undefined && command.attempt <= present.attempt) return { _tag: "Show", source: present };
  if (present !== undefined && !isOver(present)) {
    // An older attempt, begun by a command that was late: it ends first, and the claim is said again.
    const reason = `attempt ${present.attempt} was superseded by attempt ${command.attempt}`;
    const failure = { code: "fenced", actor: "ram-sender", side: "source", step: "claim the guest", reason } as const;
    return { _tag: "Step", source: present, event: { _tag: "Abort", failure } };
  }
  const busy = guestBusy(sender, command.guest, command.migration);
  if (busy !== null) {
    return {
      _tag: "Answer",
      report: {
        ...unknownReport(command, sender.incarnation),
        attempt: command.attempt,
        phase: "failed",
        failure: busy,
      },
    };
  }
  const source = makeSource({
    migration: command.migration,
    guest: command.guest,
    node: sender.node,
    destination: command.destination,
    incarnation: sender.incarnation,
    authority: { term: command.term, coordinator: command.coordinator },
    attempt: command.attempt,
    parameters: command.parameters,
    parametersRevision: command["parameters-revision"] ?? 0,
    capabilities: command.capabilities as Capabilities,
    itemPagesMax: sender.itemPagesMax,
    now,
  });
  sender.sources.set(command.migration, source);
  return { _tag: "Begin", source };
};
