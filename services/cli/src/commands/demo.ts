/** `godwit demo`: what a new user runs. */
import { awaitVerified, type GuestSpec, openRegistry, startBuiltin, type Verification } from "@godwit/guest";
import { SHARED_MEMORY_DIRECTORY } from "@godwit/host";
import { GodwitError, type MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { command, NO_OPERANDS, type Outcome } from "../arguments/command.ts";
import { migrationOptions, readCapabilities, readParameters } from "../arguments/migration-settings.ts";
import {
  count,
  durationIfGiven,
  flag,
  rate,
  rateIfGiven,
  size,
  sizeIfGiven,
  textOr,
  type Values,
} from "../arguments/option.ts";
import { settingsHelp } from "../arguments/settings-help.ts";
import { vfioOption } from "../arguments/vfio-argument.ts";
import { DESTINATION, openCluster, SOURCE, workersFor } from "../demo/cluster.ts";
import { type CheckedDevice, checkDevices, isEqual } from "../demo/device-check.ts";
import { checkSettings, type Journey, travel } from "../demo/journey.ts";
import { lookForRoom } from "../demo/room.ts";
import { onStage, type Stage } from "../demo/stage.ts";
import { type KilledWorker, openWorkerKiller } from "../demo/worker-killer.ts";
import { failureOf, migrationDocument } from "../reporting/ending.ts";
import { failureDocument } from "../reporting/failure.ts";
import { summaryText, type Verified } from "../reporting/migration-view.ts";
import type { Report } from "../reporting/report.ts";
import { formatBytes, formatRate } from "../terminal/format.ts";

const GUEST = "vm1";

const options = {
  memory: size("512MiB", "the guest's memory"),
  "dirty-rate": rate("32MiB/s", "what the guest writes"),
  "working-set": sizeIfGiven("a quarter of the memory", "the memory that it writes over and over"),
  vfio: vfioOption,
  channels: count(4, 1, 255, "multifd channels"),
  "max-bandwidth": rateIfGiven("128MiB/s, as QEMU has it", "bandwidth of precopy; 0 is unlimited"),
  "downtime-limit": durationIfGiven("300ms", "the longest the guest may stand still"),
  ...migrationOptions,
  postcopy: flag("let the guest run at its destination after the first round, and its memory follow"),
  "kill-worker": flag("kill -9 one multifd worker in the middle; the migration has to go on"),
  "guest-dir": textOr("DIRECTORY", SHARED_MEMORY_DIRECTORY, "where the guests' memory lies; best a tmpfs"),
  keep: flag("keep the log file; a demo that fails keeps it anyway"),
} as const;
type DemoValues = Values<typeof options>;

export const demo = command({
  operands: NO_OPERANDS,
  options,
  notes: () =>
    `It needs no root, no QEMU and no NATS server: it starts one of its own. Ctrl-C stops all it started.\n\n${settingsHelp()}`,
  run: ({ values }, report) => {
    const journey: Journey = {
      guest: GUEST,
      destination: DESTINATION,
      parameters: {
        "multifd-channels": values.channels,
        // No switchover keeps a downtime of 0.
        ...(values.postcopy ? { "postcopy-after-rounds": 1, "downtime-limit": 0 } : {}),
        ...(values["max-bandwidth"] === null ? {} : { "max-bandwidth": values["max-bandwidth"] }),
        ...(values["downtime-limit"] === null ? {} : { "downtime-limit": values["downtime-limit"] }),
        ...readParameters(values.set),
      },
      capabilities: {
        ...(values.postcopy ? { "postcopy-ram": true, "postcopy-preempt": true } : {}),
        ...readCapabilities(values.capability),
      },
    };
    const wanted = { directory: values["guest-dir"], memoryBytes: values.memory, driver: "builtin" } as const;
    const stage = { name: "demo", guestRoot: values["guest-dir"], keepLog: values.keep };
    return checkSettings(journey).pipe(
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
      `starting NATS, a coordinator, nodes ${SOURCE} and ${DESTINATION}, and a guest of ${formatBytes(values.memory)} that writes ${formatRate(values["dirty-rate"])}${devicesText(values)}`,
    );
    const [guest, { cluster, onFabric }] = yield* Effect.all(
      [
        startBuiltin({
          name: GUEST,
          memoryBytes: values.memory,
          dirtyRateBytesPerSecond: values["dirty-rate"],
          // They are looked at once their guest has gone.
          devices: values.vfio.map((device) => ({ ...device, ownerPid: process.pid })),
          ...(values["working-set"] === null ? {} : { workingSetBytes: values["working-set"] }),
          directory: `${stage.guestDirectory}/${SOURCE}`,
        }),
        openCluster(stage, {
          nodes: [
            { name: SOURCE, workers: workersFor(values.channels), guests: [] },
            { name: DESTINATION, workers: 0, guests: [] },
          ],
        }),
      ],
      { concurrency: 2 },
    );
    openRegistry(cluster.settingsOf(SOURCE).runtimeDirectory).put(guest);
    report.say(`\`godwit watch --nats ${cluster.url}\` in another terminal sees this, too`);
    report.say(`moving guest ${GUEST} from ${SOURCE} to ${DESTINATION} over ${values.channels} channels while it runs`);
    const killer = openWorkerKiller(SOURCE, cluster.children, ({ worker, pid, round, ...bytes }) =>
      report.say(
        `killed multifd worker ${worker} (pid ${pid}) in round ${round} with ${formatBytes(bytes["in-flight-bytes"])} in flight and ${formatBytes(bytes["remaining-bytes"])} left`,
      ),
    );
    const ended = yield* onFabric(travel(journey, report, values["kill-worker"] ? killer.look : undefined));
    const failed = failureOf(ended);
    if (failed !== null) return outcomeOf(ended, null, killer.killed(), failed);
    const found = yield* verify(guest, openRegistry(cluster.settingsOf(DESTINATION).runtimeDirectory));
    return outcomeOf(ended, found, killer.killed(), doubt(values, found, killer.killed()));
  });

const devicesText = ({ vfio }: DemoValues): string =>
  vfio.length === 0 ? "" : `, with ${vfio.length} VFIO device${vfio.length === 1 ? "" : "s"}`;

interface Found {
  readonly memory: Verification;
  readonly devices: ReadonlyArray<CheckedDevice>;
}

/** The guest itself has looked at every page since it was started at the destination; its devices are looked at by us. */
const verify = (left: GuestSpec, registry: ReturnType<typeof openRegistry>): Effect.Effect<Found, GodwitError> =>
  Effect.suspend(() => {
    const arrived = registry.find(GUEST);
    if (arrived?.driver === "builtin")
      return Effect.all({
        devices: checkDevices(left.devices ?? [], arrived.devices ?? []),
        memory: awaitVerified(arrived),
      });
    return Effect.fail(demoError("verification-failed", `node ${DESTINATION} does not know the guest`));
  });

const demoError = (code: GodwitError["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "cli", step: "look at the result", reason });

const isMemoryVerified = ({ done, badCount, pagesChecked, pagesTotal }: Verification): boolean =>
  done && badCount === 0 && pagesTotal > 0 && pagesChecked === pagesTotal;

const differentDevices = ({ devices }: Found): ReadonlyArray<string> =>
  devices.filter((device) => !isEqual(device)).map(({ device }) => device);

const isVerified = (found: Found): boolean => isMemoryVerified(found.memory) && differentDevices(found).length === 0;

/** Why a completed migration is not what was asked for; null when it is. */
const doubt = (values: DemoValues, found: Found, killed: KilledWorker | null): GodwitError | null => {
  const { memory } = found;
  if (!isMemoryVerified(memory)) {
    const reason = `${memory.badCount} of ${memory.pagesChecked} pages checked (of ${memory.pagesTotal}) are not what the guest wrote`;
    return demoError("verification-failed", reason);
  }
  const different = differentDevices(found);
  if (different.length > 0 || found.devices.length !== values.vfio.length) {
    const reason = `device ${different.join(", ")} of ${values.vfio.length} does not hold what was saved of it`;
    return demoError("verification-failed", reason);
  }
  if (values["kill-worker"] && killed === null) {
    const reason =
      "the migration was over before a worker could be killed; give it more --memory or less --max-bandwidth";
    return demoError("wrong-state", reason);
  }
  return null;
};

const verifiedOf = (found: Found): Verified => ({
  verified: { pages: found.memory.pagesChecked, bad: found.memory.badCount },
  ...(found.devices.length === 0
    ? {}
    : { devicesVerified: { devices: found.devices.length, different: differentDevices(found) } }),
});

const outcomeOf = (
  info: MigrationInfo,
  found: Found | null,
  killed: KilledWorker | null,
  failure: GodwitError | null,
): Outcome => ({
  document: {
    ...migrationDocument(info),
    verified: found !== null && isVerified(found),
    ...(found === null
      ? {}
      : {
          verification: {
            "pages-total": found.memory.pagesTotal,
            "pages-checked": found.memory.pagesChecked,
            "bad-count": found.memory.badCount,
            bad: found.memory.bad,
            ...(found.devices.length === 0 ? {} : { devices: found.devices }),
          },
        }),
    ...(killed === null ? {} : { "killed-worker": killed }),
    ...(failure === null ? {} : { error: failureDocument(failure) }),
  },
  text: summaryText(info, found === null ? {} : verifiedOf(found)),
  ...(failure === null ? {} : { failure }),
});
