/** What a coordinator says to the two sides: each command again and again until the other side shows that it has arrived. */
import type { DestinationReport, Epoch, Incarnation, SourceReport } from "@godwit/protocol";
import { giveUpAgain } from "./giving-up.ts";
import type { Migration } from "./migration-state.ts";
import { type Emit, failure, header } from "./moves.ts";
import { reckonAgain } from "./reckoning.ts";

/** The command that the present phase waits on. */
export const sayCommand = (migration: Migration, emit: Emit): void => {
  const { phase } = migration;
  const shared = header(migration);
  switch (phase._tag) {
    case "Claiming":
      return emit({
        _tag: "ToSource",
        command: {
          _tag: "Claim",
          ...shared,
          attempt: migration.attempt,
          guest: migration.guest,
          parameters: migration.parameters,
          "parameters-revision": migration.parametersRevision,
          capabilities: migration.capabilities,
        },
      });
    case "Preparing": {
      const offer = migration.sourceReport?.offer;
      // A source that has claimed and offers nothing has nothing to move; the deadline ends that.
      if (offer === undefined) return;
      return emit({
        _tag: "ToDestination",
        command: {
          _tag: "Prepare",
          ...shared,
          epoch: migration.epoch as Epoch,
          guest: migration.guest,
          offer,
          parameters: migration.parameters,
          "parameters-revision": migration.parametersRevision,
          capabilities: migration.capabilities,
        },
      });
    }
    case "Starting": {
      const maxPayload = migration.destinationReport?.["max-payload"];
      return emit({
        _tag: "ToSource",
        command: {
          _tag: "Start",
          ...shared,
          epoch: migration.epoch as Epoch,
          incarnation: phase.incarnation as Incarnation,
          ...(maxPayload === undefined ? {} : { "max-payload": maxPayload }),
        },
      });
    }
    case "Adopting":
      return emit({ _tag: "ToSource", command: { _tag: "Inspect", ...shared } });
    case "Aborting": {
      const why = migration.failure ?? failure("internal", "retry", "another attempt begins");
      emit({ _tag: "ToSource", command: { _tag: "Abort", ...shared, attempt: migration.attempt, failure: why } });
      if (migration.epoch === 0) return;
      const epoch = migration.epoch as Epoch;
      return emit({ _tag: "ToDestination", command: { _tag: "Abandon", ...shared, epoch, failure: why } });
    }
    case "Reckoning":
      return reckonAgain(migration, emit);
    case "Postcopy":
      return giveUpAgain(migration, emit);
    case "Active":
    case "Switching":
    case "Ending":
    case "Ended":
    case "Replaced":
      return;
  }
};

/** Not to a source that is being told to stop: of two words that contradict each other the later one, to cancel, holds. */
export const sayContinue = (migration: Migration, emit: Emit): void => {
  if (migration.phase._tag !== "Active" && migration.phase._tag !== "Switching") return;
  emit({ _tag: "ToSource", command: { _tag: "Continue", ...header(migration), epoch: migration.epoch as Epoch } });
};

/** Until the source's report shows another phase. Where it waits for a verdict, that is the word. */
export const sayStartPostcopy = (migration: Migration, { phase, verdict, epoch }: SourceReport, emit: Emit): void => {
  if (!migration.postcopyWanted || phase !== "precopy" || verdict !== undefined) return;
  if (migration.phase._tag !== "Active" && migration.phase._tag !== "Switching") return;
  emit({ _tag: "ToSource", command: { _tag: "StartPostcopy", ...header(migration), epoch: epoch as Epoch } });
};

/** The operator's last word; the destination's report shows whether it has arrived. */
export const sayToFetching = (migration: Migration, emit: Emit): void => {
  if (migration.word === null) return;
  const { number, word } = migration.word;
  const epoch = migration.epoch as Epoch;
  emit({ _tag: "ToDestination", command: { _tag: word, ...header(migration), epoch, word: number } });
};

/** Until the source's report shows them: the first word may be lost, and `set-parameters` has been answered long since. */
export const sayParameters = (migration: Migration, report: SourceReport, emit: Emit): void => {
  const shown = report["parameters-revision"] ?? 0;
  if (shown === migration.parametersRevision || !TUNABLE.has(migration.phase._tag)) return;
  emit({
    _tag: "ToSource",
    command: {
      _tag: "Tune",
      ...header(migration),
      epoch: Math.max(1, report.epoch) as Epoch,
      parameters: migration.parameters,
      "parameters-revision": migration.parametersRevision,
    },
  });
};

/** A claim brings the parameters itself, and an attempt that is being undone needs none. */
const TUNABLE: ReadonlySet<Migration["phase"]["_tag"]> = new Set(["Preparing", "Starting", "Active", "Switching"]);

/** The same for the destination, which fetches pages in a postcopy. */
export const sayParametersToDestination = (migration: Migration, report: DestinationReport, emit: Emit): void => {
  const shown = report["parameters-revision"] ?? 0;
  if (report.epoch !== migration.epoch || shown === migration.parametersRevision) return;
  if (!LOADING.has(migration.phase._tag)) return;
  emit({
    _tag: "ToDestination",
    command: {
      _tag: "Tune",
      ...header(migration),
      epoch: migration.epoch as Epoch,
      parameters: migration.parameters,
      "parameters-revision": migration.parametersRevision,
    },
  });
};

const LOADING: ReadonlySet<Migration["phase"]["_tag"]> = new Set(["Starting", "Active", "Switching", "Postcopy"]);
