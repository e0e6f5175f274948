/** `godwit demo-qemu`: two unmodified QEMUs on this machine. */
import { QEMU_PROGRAM, QemuDriver } from "@godwit/guest";
import { SHARED_MEMORY_DIRECTORY } from "@godwit/host";
import { GodwitError, type MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { command, NO_OPERANDS, type Outcome } from "../arguments/command.ts";
import { migrationOptions, readCapabilities, readParameters } from "../arguments/migration-settings.ts";
import { count, flag, rate, size, textOr, type Values } from "../arguments/option.ts";
import { settingsHelp } from "../arguments/settings-help.ts";
import { DESTINATION, openCluster, SOURCE, workersFor } from "../demo/cluster.ts";
import { checkSettings, type Journey, travel } from "../demo/journey.ts";
import { needQemu, type QemuPair, startPair } from "../demo/qemu-pair.ts";
import { isProven, proveRam, type RamProof } from "../demo/ram-proof.ts";
import { lookForRoom } from "../demo/room.ts";
import { onStage, type Stage } from "../demo/stage.ts";
import { failureOf, migrationDocument } from "../reporting/ending.ts";
import { failureDocument, unforeseen } from "../reporting/failure.ts";
import { summaryText } from "../reporting/migration-view.ts";
import type { Report } from "../reporting/report.ts";
import { formatBytes, formatCount, formatRate } from "../terminal/format.ts";

const GUEST = "vm1";

const options = {
  memory: size("128MiB", "the guest's memory, below 3 GiB"),
  "dirty-rate": rate("24MiB/s", "what the guest writes"),
  channels: count(4, 1, 255, "multifd channels"),
  ...migrationOptions,
  "guest-dir": textOr("DIRECTORY", SHARED_MEMORY_DIRECTORY, "where the guests' memory lies; best a tmpfs"),
  keep: flag("keep the log file; a demo that fails keeps it anyway"),
} as const;
type DemoValues = Values<typeof options>;

export const demoQemu = command({
  operands: NO_OPERANDS,
  options,
  notes: () =>
    `Needs ${QEMU_PROGRAM} 8 or later, no KVM and no root. The guest is a boot sector that adds up counters in every page of its\nmemory: when it is stopped, they show whether an update was lost.\n\n${settingsHelp()}`,
  run: ({ values }, report) => {
    const journey: Journey = {
      guest: GUEST,
      destination: DESTINATION,
      parameters: { "multifd-channels": values.channels, ...readParameters(values.set) },
      capabilities: readCapabilities(values.capability),
    };
    const wanted = { directory: values["guest-dir"], memoryBytes: values.memory, driver: "qemu" } as const;
    const stage = { name: "demo-qemu", guestRoot: values["guest-dir"], keepLog: values.keep };
    return needQemu.pipe(
      Effect.andThen(checkSettings(journey)),
      Effect.flatMap((parameters) => lookForRoom({ ...wanted, tracker: parameters["dirty-tracker"] }, report)),
      Effect.andThen(onStage(stage, report, (opened) => perform(values, journey, opened, report))),
    );
  },
});

const perform = (
  values: DemoValues,
  journey: Journey,
  stage: Stage,
  report: Report,
): Effect.Effect<Outcome, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    report.say(
      `booting a guest of ${formatBytes(values.memory)} that writes ${formatRate(values["dirty-rate"])} in QEMU (software emulation), and a second QEMU that waits for it`,
    );
    const pair = yield* startPair(stage, GUEST, values.memory, values["dirty-rate"]);
    // The actors end before the memory is looked at: nobody else is at the monitors then.
    const ended = yield* Effect.scoped(move(values, journey, pair, stage, report));
    const failed = failureOf(ended);
    if (failed !== null) return outcomeOf(ended, null, failed);
    const guest = yield* QemuDriver.open(pair.destination.spec);
    yield* guest.pause;
    const proof = yield* Effect.try({
      try: () => proveRam(pair.source.ramPath, pair.destination.ramPath, pair.source.program),
      catch: unforeseen,
    });
    return outcomeOf(ended, proof, isProven(proof) ? null : lostUpdate(proof));
  });

const move = (values: DemoValues, journey: Journey, pair: QemuPair, stage: Stage, report: Report) =>
  Effect.gen(function* () {
    report.say(`starting NATS, a coordinator, and nodes ${SOURCE} and ${DESTINATION}`);
    const { onFabric } = yield* openCluster(stage, {
      nodes: [
        { name: SOURCE, workers: workersFor(values.channels), guests: [pair.source.spec] },
        { name: DESTINATION, workers: 0, guests: [pair.destination.spec] },
      ],
    });
    report.say(`moving guest ${GUEST} from ${SOURCE} to ${DESTINATION} over ${values.channels} channels while it runs`);
    return yield* onFabric(travel(journey, report));
  });

const lostUpdate = (proof: RamProof): GodwitError =>
  new GodwitError({
    code: "verification-failed",
    actor: "cli",
    step: "look at the destination's memory",
    reason: `${proof["ledger-faults"]} counters are wrong, ${proof["pages-different"]} of ${proof["pages-compared"]} pages differ elsewhere, and the guest made ${proof["updates-since"]} updates since it was stopped in pass ${proof["pass-at-source"]}`,
  });

const outcomeOf = (info: MigrationInfo, proof: RamProof | null, failure: GodwitError | null): Outcome => ({
  document: {
    ...migrationDocument(info),
    verified: proof !== null && isProven(proof),
    ...(proof === null ? {} : { verification: proof }),
    ...(failure === null ? {} : { error: failureDocument(failure) }),
  },
  text: summaryText(info) + (proof === null ? "" : proofText(proof)),
  ...(failure === null ? {} : { failure }),
});

const proofText = (proof: RamProof): string =>
  [
    `  verified    ${proof["ledger-faults"] === 0 ? "no update was lost" : `${formatCount(proof["ledger-faults"])} counters are WRONG`}: ` +
      `stopped in pass ${proof["pass-at-source"]} over its memory, the guest has made ${formatCount(proof["updates-since"])} more by now`,
    `              all ${formatCount(proof["pages-compared"])} pages compared with the source's: ${proof["pages-different"] === 0 ? "the counters alone have gone on" : `${formatCount(proof["pages-different"])} DIFFER`}` +
      (proof["low-pages-different"] === 0
        ? ""
        : `, and ${proof["low-pages-different"]} of the firmware's and the stack's pages below 1 MiB`),
    "",
  ].join("\n");
