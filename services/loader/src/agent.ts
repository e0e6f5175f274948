/** What the loader says to the VFIO agent of its host, and hears of it. */
import { Fabric } from "@godwit/fabric";
import {
  type Epoch,
  isMalformed,
  json,
  LoadReport,
  type LoadStage,
  type MigrationId,
  subjects,
  VfioCommand,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { type Destination, type DestinationEvent, holdsMemory, promisedStreams } from "./decisions/index.ts";

/** A command that is not answered by then is said again by the decisions, ms. */
const ANSWER_MS = 2000;
const WAITING_REPORTS_MAX = 64;

const commands = json(VfioCommand);
const reports = json(LoadReport);

/** Says to which stage the devices shall be brought; what it comes to is reported. Never fails: it is said again. */
export const tellAgent = Effect.fnUntraced(function* (destination: Destination, node: string, stage: LoadStage) {
  const fabric = yield* Fabric;
  const { devices } = destination;
  const command = commands.encode({
    _tag: "Load",
    migration: destination.migration as MigrationId,
    epoch: destination.epoch as Epoch,
    guest: destination.guest,
    peer: destination.source,
    stage,
    parameters: destination.parameters,
    devices: destination.offer.devices ?? [],
    streams: promisedStreams(destination),
    "memory-loaded": holdsMemory(destination),
    ...(devices === null || devices.agent === null ? {} : { agent: devices.agent as never }),
  });
  yield* fabric.request(subjects.vfio(node), command, { timeoutMs: ANSWER_MS }).pipe(
    Effect.catchTag("GodwitError", (error) => Effect.logError(`the VFIO agent refuses: ${error.message}`)),
    Effect.ignore,
  );
});

/** How the agent stands becomes an event, until the scope ends. */
export const listenToAgent = Effect.fnUntraced(function* (
  destination: Destination,
  dispatch: (event: DestinationEvent) => void,
) {
  const fabric = yield* Fabric;
  if (destination.devices === null) return;
  const messages = yield* Effect.orDie(
    fabric.subscribe(subjects.loadReport(destination.route), { capacity: WAITING_REPORTS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(messages.takeAll, (batch) => {
        for (const { data } of batch) {
          const report = reports.decode(data);
          if (!isMalformed(report) && report.migration === destination.migration)
            dispatch({ _tag: "DevicesReported", report });
        }
      }),
    ),
  );
});
