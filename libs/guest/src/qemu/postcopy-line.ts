/**
 * What holds of a postcopy whoever speaks with its QEMU: how a broken connection is replaced, how it ends, how it is given up.
 *
 *     godwit                                    QEMU, in `postcopy-paused` since its connection broke
 *       | --- QMP migrate-recover ----------------> |   listens once more
 *       | --- RECV_BITMAP, for each block --------> |
 *       | <-- RECV_BITMAP: what it has put in place  |   without what was written into its RAM file past it
 *       | --- POSTCOPY_RESUME --------------------> |
 *       | <-------------------------- RESUME_ACK --- |
 *       | <-- REQ_PAGES, all that are waited for --- |
 */
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import type { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import * as Scope from "effect/Scope";
import type { Blocktime } from "../missing-memory.ts";
import { asFailure, failure, localFailure, qmpFailure } from "./failure.ts";
import { askReceived, resume } from "./incoming-stream.ts";
import type { QemuSpec } from "./launch.ts";
import type { Line } from "./missing-memory.ts";
import { isQmpAbsent, type Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";
import { rendezvousPath } from "./rendezvous.ts";
import type { ReturnMessage } from "./return-path.ts";
import { sayQuit } from "./run-control.ts";
import { MigrationInfo } from "./run-state.ts";
import { connectStream, type StreamConnection } from "./stream-connection.ts";

const REJOIN = "take the place of a broken connection to QEMU";
const END = "end the postcopy";
const COUNT = "count the vCPUs";

/** QEMU sees at once that whoever spoke to it is gone, unless its main loop itself waits for a page. */
const PAUSED_TIMEOUT: Duration.Input = "5 seconds";
const RESUME_TIMEOUT: Duration.Input = "5 seconds";
/** How long QEMU takes to settle once it has all pages. */
const COMPLETED_TIMEOUT: Duration.Input = "5 seconds";
const LOOK_AGAIN: Duration.Input = "5 millis";

/** A guest's QEMU, a way to its monitor, and whom to tell why it will end. */
export interface QemuReach {
  readonly spec: QemuSpec;
  readonly monitor: Effect.Effect<Qmp, QmpError, Scope.Scope>;
  readonly givenUp: (reason: string) => void;
}

export const withMonitor = <A>(
  { monitor }: QemuReach,
  step: string,
  work: (qmp: Qmp) => Effect.Effect<A, GodwitError | QmpError, Scope.Scope>,
): Effect.Effect<A, GodwitError> => Effect.scoped(Effect.flatMap(monitor, work)).pipe(Effect.mapError(asFailure(step)));

/** `blocks` as in the memory, with QEMU's own names. `settings` puts QEMU's back once nothing is missing. New connections are closed with the scope. */
export const makeLine = Effect.fnUntraced(function* (
  reach: QemuReach,
  blocks: ReadonlyArray<ReceivingBlock>,
  first: StreamConnection | null,
  settings: (qmp: Qmp) => Effect.Effect<void>,
): Effect.fn.Return<Line, never, Scope.Scope> {
  const scope = yield* Effect.scope;
  let connection = first;

  const rejoin: Line["rejoin"] = (heard) =>
    withMonitor(reach, REJOIN, (qmp) =>
      Effect.gen(function* () {
        yield* untilStatus(qmp, REJOIN, "postcopy-paused", PAUSED_TIMEOUT);
        const socket = yield* rendezvousPath(qmp).pipe(Effect.mapError(localFailure(REJOIN)));
        yield* qmp.execute("migrate-recover", Schema.Unknown, { uri: `unix:${socket}` });
        const opened = yield* connectStream(socket, heard).pipe(Effect.provideService(Scope.Scope, scope));
        const received = yield* Effect.forEach(blocks, (block) => receivedOf(opened, block));
        const resumed = opened.awaiting("the answer to a recovery", ({ kind }) => kind === "resumed", RESUME_TIMEOUT);
        opened.send(resume);
        yield* resumed;
        connection = opened;
        return { connection: opened, received };
      }),
    );

  return {
    rejoin,
    vcpus: withMonitor(reach, COUNT, (qmp) =>
      Effect.map(qmp.execute("query-cpus-fast", Schema.Array(Schema.Unknown)), (vcpus) => vcpus.length),
    ),
    settle: withMonitor(reach, END, (qmp) =>
      Effect.map(untilStatus(qmp, END, "completed", COMPLETED_TIMEOUT), blocktimeOf).pipe(
        Effect.tap(() => settings(qmp)),
      ),
    ),
    giveUp: (reason) =>
      Effect.gen(function* () {
        reach.givenUp(reason);
        yield* Effect.logError(`guest ${reach.spec.name} is ended: ${reason}`);
        // Its threads may wait for pages where no command reaches them: `quit` would wait for those threads.
        const isThere = connection?.isOpen() || !(yield* isQmpAbsent(reach.spec.qmp));
        const pid = connection?.pid ?? 0;
        if (isThere && pid > 0) yield* kill(pid);
        // Where its process cannot be seen from here: its vCPUs stop, those that wait for pages at the latest when these would come.
        else if (isThere) yield* withMonitor(reach, END, sayQuit);
      }),
  };
});

type ReceivingBlock = Pick<RamBlock, "lengthBytes"> & { readonly ramBlock: string };

/** The pages of a block that QEMU has put in place. */
const receivedOf = (
  connection: StreamConnection,
  { ramBlock, lengthBytes }: ReceivingBlock,
): Effect.Effect<Bitmap.Bitmap, GodwitError> =>
  Effect.suspend(() => {
    const isThis = (message: ReturnMessage) => message.kind === "received" && message.block === ramBlock;
    const answer = connection.awaiting(`what QEMU has received of ${ramBlock}`, isThis, RESUME_TIMEOUT);
    connection.send(askReceived(ramBlock));
    return answer;
  }).pipe(
    Effect.flatMap((message) => {
      const bitmap = message.kind === "received" ? Bitmap.fromBytes(message.bits, lengthBytes / PAGE_BYTES) : null;
      const reason = `what QEMU says that it has received of ${ramBlock} is not of its ${lengthBytes} bytes`;
      return bitmap === null ? Effect.fail(failure("device-state-failed", REJOIN, reason)) : Effect.succeed(bitmap);
    }),
  );

const blocktimeOf = (info: MigrationInfo): Blocktime | null => {
  const { "postcopy-blocktime": allMs, "postcopy-vcpu-blocktime": vcpusMs } = info;
  return allMs === undefined || vcpusMs === undefined ? null : { allMs, vcpusMs };
};

const untilStatus = (
  qmp: Qmp,
  step: string,
  wanted: string,
  timeout: Duration.Input,
): Effect.Effect<MigrationInfo, GodwitError> =>
  qmp.execute("query-migrate", MigrationInfo).pipe(
    Effect.mapError(qmpFailure(step)),
    Effect.repeat({ until: ({ status }) => status === wanted, schedule: Schedule.spaced(LOOK_AGAIN) }),
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => Effect.fail(failure("device-state-failed", step, `QEMU was not ${wanted} within ${timeout}`)),
    }),
  );

const kill = (pid: number): Effect.Effect<void> =>
  Effect.try({ try: () => void process.kill(pid, "SIGKILL"), catch: (cause) => cause }).pipe(
    Effect.catch((cause) => Effect.logWarning(`QEMU, process ${pid}, could not be ended: ${String(cause)}`)),
  );
