/** Devices that an earlier life of this sender had in hand: led back to RUNNING before their guest goes on, or stopped when it is elsewhere. */
import { Fabric } from "@godwit/fabric";
import type { GuestSpec } from "@godwit/guest";
import {
  isMalformed,
  json,
  type OwnershipRecord,
  PARAMETER_DEFAULTS,
  SaveReport,
  subjects,
  VfioCommand,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";

/** The agent is told so often until it reports that it is done, ms. */
const TELL_MS = 200;
/** A guest waits no longer for devices that do not go back, ms: a machine without a device is better than one that stands still. */
const RELEASE_MS = 10_000;
const WAITING_REPORTS_MAX = 64;

const commands = json(VfioCommand);
const reports = json(SaveReport);

/** Never fails. `record`: what took the guest back, whose epoch fences off the session that the agent has of the attempt; or what gave it away. */
export const releaseDevices = Effect.fnUntraced(function* (
  spec: GuestSpec,
  record: OwnershipRecord,
  stage: "resumed" | "discarded",
  node: string,
) {
  if ((spec.devices ?? []).length === 0) return;
  const fabric = yield* Fabric;
  const { migration, epoch } = record;
  const command = commands.encode({
    _tag: "Save",
    migration,
    epoch,
    guest: spec.name as never,
    // Nothing is sent any more: which node it was does not matter.
    peer: node,
    stage,
    parameters: PARAMETER_DEFAULTS,
    "parameters-revision": 0,
    "block-bytes": [],
  });
  const released = Effect.gen(function* () {
    const heard = yield* fabric.subscribe(subjects.saveReport({ migration, source: node, destination: "*" }), {
      capacity: WAITING_REPORTS_MAX,
    });
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.andThen(
          Effect.ignore(fabric.request(subjects.vfio(node), command, { timeoutMs: RELEASE_MS })),
          Effect.sleep(TELL_MS),
        ),
      ),
    );
    while (true) {
      const all = (yield* heard.takeAll).map(({ data }) => reports.decode(data));
      if (all.some((report) => !isMalformed(report) && report.epoch === epoch && report.stage === stage)) return;
    }
  });
  yield* Effect.scoped(released).pipe(
    Effect.timeout(RELEASE_MS),
    Effect.catch((error) => Effect.logError(`the devices of guest ${spec.name} were not ${stage}: ${error.message}`)),
  );
});
