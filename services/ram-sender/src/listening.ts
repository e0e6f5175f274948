/** What a source hears from outside: acknowledgements of its items, how its destination stands, and its VFIO devices. */
import { Fabric } from "@godwit/fabric";
import { DestinationReport, decodeAcknowledgement, isMalformed, json, SaveReport, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Source, SourceEvent } from "./decisions/index.ts";

/** Acknowledgements that may wait: one for each item that windows allow in flight, if every item held one page. */
const WAITING_ACKNOWLEDGEMENTS_MAX = 16_384;
/** Reports of the destination, and of the VFIO agent, that may wait. */
const WAITING_REPORTS_MAX = 64;

const saveReport = json(SaveReport);
const destinationReport = json(DestinationReport);

/** All become events, until the scope ends. What is malformed is dropped: its item is late, and goes again. */
export const listen = Effect.fnUntraced(function* (source: Source, dispatch: (event: SourceEvent) => void) {
  const fabric = yield* Fabric;
  const acknowledgements = yield* Effect.orDie(
    fabric.subscribe(subjects.acknowledgement(source.route), { capacity: WAITING_ACKNOWLEDGEMENTS_MAX }),
  );
  const refusals = yield* Effect.orDie(
    fabric.subscribe(subjects.refusal(source.route), { capacity: WAITING_ACKNOWLEDGEMENTS_MAX }),
  );
  const reports = yield* Effect.orDie(
    fabric.subscribe(subjects.destinationReport(source.route), { capacity: WAITING_REPORTS_MAX }),
  );
  const devices = yield* Effect.orDie(
    fabric.subscribe(subjects.saveReport(source.route), { capacity: WAITING_REPORTS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(devices.takeAll, (messages) => {
        for (const message of messages) {
          const report = saveReport.decode(message.data);
          if (!isMalformed(report) && report.migration === source.migration)
            dispatch({ _tag: "DevicesReported", report });
        }
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(acknowledgements.takeAll, (messages) => {
        for (const message of messages) {
          const ack = decodeAcknowledgement(message.data);
          if (ack.kind === "malformed" || ack.migration !== source.migration) continue;
          if (ack.kind === "applied") dispatch({ ...ack, _tag: "Applied" });
          if (ack.kind === "differs") dispatch({ ...ack, _tag: "Differs" });
        }
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(refusals.takeAll, (messages) => {
        for (const message of messages) {
          const word = decodeAcknowledgement(message.data);
          if (word.kind === "refused" && word.migration === source.migration) dispatch({ ...word, _tag: "Refused" });
        }
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(reports.takeAll, (messages) => {
        for (const message of messages) {
          const report = destinationReport.decode(message.data);
          if (isMalformed(report) || report.migration !== source.migration) continue;
          const { epoch, incarnation, life, phase, failure, waterfall } = report;
          if (phase === "ready" && life > 0) dispatch({ _tag: "DestinationResumed", epoch, incarnation, life });
          if (phase === "running" || phase === "postcopy")
            dispatch({
              _tag: "DestinationRunning",
              epoch,
              incarnation,
              ...(waterfall === undefined ? {} : { waterfall }),
            });
          if (phase === "failed" && failure !== undefined)
            dispatch({ _tag: "DestinationFailed", epoch, incarnation, failure });
        }
      }),
    ),
  );
});
