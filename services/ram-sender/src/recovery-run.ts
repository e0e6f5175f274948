/** Settles what an earlier life of this sender left behind, guest by guest, before anything new is begun (O7). */
import { answering, type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { type Guest, type GuestSpec, lookAt, openGuest, type Registry } from "@godwit/guest";
import { addressExport, exportBlocks, isExported, withdrawExports } from "@godwit/memory";
import type { GodwitError, OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { reasonOfLoss, recover, settled } from "./decisions/index.ts";

/** Between two looks at a record that cannot be reached or may be stale, ms. */
const LOOK_AGAIN_MS = 300;
/** A paused guest whose record says "nothing to do" is looked at again so often: a read may be stale (a deposed leader answers for some seconds at most). */
const LOOKS = 10;
/** A guest that does not go on is asked again, for a minute. */
const RESUME_AGAIN = { schedule: Schedule.spaced("500 millis"), times: 120 };

/** Ends when the guest's record is settled, or its guest does not go on; never fails. */
export const recoverGuest = Effect.fnUntraced(function* (
  spec: GuestSpec,
  settings: Settings,
  register: OwnershipRegister,
  registry: Registry,
  /** Leads the guest's devices back to RUNNING, under the record that took it back, or stops them under the one that gave it away. */
  release: (spec: GuestSpec, record: OwnershipRecord, stage: "resumed" | "discarded") => Effect.Effect<void>,
): Effect.fn.Return<void> {
  for (let look = 1; look <= LOOKS; look++) {
    const entry = yield* known(register, spec.name);
    // Stopped for a checkpoint: no record was touched for that, and where the guest belongs it goes on.
    if (spec.moving === "saving" && (entry === null || entry.record.node === settings.node))
      return void (yield* goOn(spec, registry));
    const recovery = recover(entry, settings.node, `${settings.incarnation}-${randomId()}`);
    const state = yield* lookAt(spec);
    // One that cannot be reached at the moment may stand still, too.
    const mayStandStill = state === "paused" || state === null;
    if (recovery._tag === "Later" && spec.moving === "leaving") {
      yield* Effect.sleep(SERVED_LOOK_MS);
      look = 0;
      continue;
    }
    if (recovery._tag === "Serve" && (state === "gone" || state === "failed")) {
      // The only copy of what the destination lacks: whoever waits for it there must know.
      const reason = reasonOfLoss(spec.name, "its process has ended while no RAM sender ran");
      const op = `${settings.incarnation}-${randomId()}`;
      const told = yield* register.write(spec.name, { ...recovery.record, op, lost: reason }, recovery.revision);
      if (typeof told === "object") return yield* Effect.logError(reason);
      yield* Effect.sleep(LOOK_AGAIN_MS);
      look = 0;
      continue;
    }
    if (recovery._tag === "Serve" && spec.moving === "leaving") {
      yield* serve(spec, recovery.record, settings);
      look = 0;
      continue;
    }
    // What does not stand still for its switchover is no leftover of a hand-over.
    if (recovery._tag !== "TakeBack" && (!mayStandStill || (recovery._tag === "Discard" && spec.moving !== "leaving")))
      return;
    if (
      recovery._tag === "Nothing" ||
      recovery._tag === "Later" ||
      recovery._tag === "Serve" ||
      (recovery._tag === "Discard" && state === null)
    ) {
      yield* Effect.sleep(LOOK_AGAIN_MS);
      continue;
    }
    const outcome = yield* register.write(spec.name, recovery.record, recovery.revision);
    const revision =
      typeof outcome === "object" ? outcome.revision : yield* ownRevision(register, spec.name, recovery.record.op);
    if (revision !== null) {
      if (recovery._tag === "Discard") {
        withdrawExports(settings.runtimeDirectory, recovery.record.migration);
        yield* release(spec, recovery.record, "discarded");
        return yield* discard(spec, recovery.record.node, registry);
      }
      yield* release(spec, recovery.record, "resumed");
      // It stands still yet: the record stays open, for the next life to find.
      if (recovery.resume && mayStandStill && !(yield* goOn(spec, registry))) return;
      // Not written: the next life finds it open, and finds nothing to do.
      return void (yield* register.write(
        spec.name,
        settled(recovery.record, `${settings.incarnation}-${randomId()}`),
        revision,
      ));
    }
    // Unknown, or somebody was faster: nothing is settled, look again from the start (O5).
    look = 0;
    yield* Effect.sleep(LOOK_AGAIN_MS);
  }
});

/** Between two looks at the record while pages are fetched from here, ms. */
const SERVED_LOOK_MS = 1000;

/** Lets the workers read the memory of a guest that runs elsewhere without it, for as long as the next look at the record is away. */
const serve = (spec: GuestSpec, { migration, epoch, node }: OwnershipRecord, settings: Settings): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { blocks } = yield* Effect.flatMap(openGuest(spec), (guest) => guest.describe);
      yield* Effect.try(() => {
        if (isExported(settings.runtimeDirectory, migration, epoch)) return;
        exportBlocks(settings.runtimeDirectory, migration, epoch, blocks);
        addressExport(settings.runtimeDirectory, "ram", migration, node);
      });
    }),
  ).pipe(
    Effect.catch((error) =>
      Effect.logError(
        `the memory of guest ${spec.name}, which runs elsewhere and fetches it, is not to be had: ${error}`,
      ),
    ),
    Effect.andThen(Effect.sleep(SERVED_LOOK_MS)),
  );

/** True once it runs, or has ended for good. */
const goOn = (spec: GuestSpec, registry: Registry): Effect.Effect<boolean> =>
  Effect.scoped(
    Effect.flatMap(openGuest(spec), (guest) => Effect.raceFirst(resume(spec, guest, registry), isOver(spec, guest))),
  ).pipe(
    Effect.as(true),
    Effect.catch((error) =>
      Effect.as(
        Effect.logError(`guest ${spec.name} stays stopped until this sender starts again: ${error.message}`),
        false,
      ),
    ),
  );

const isOver = (spec: GuestSpec, guest: Guest): Effect.Effect<void> =>
  Effect.flatMap(guest.ending, ({ reason }) =>
    Effect.logWarning(`guest ${spec.name}, which an earlier life of this sender left stopped, has ended: ${reason}`),
  );

const resume = (spec: GuestSpec, guest: Guest, registry: Registry): Effect.Effect<void, GodwitError> =>
  guest.resume.pipe(
    // It runs, whatever the registry says.
    Effect.tap(() => Effect.ignore(noteStays(Effect.sync(() => registry.settle(spec.name))))),
    Effect.andThen(
      Effect.logWarning(
        `an earlier life of this sender left guest ${spec.name} stopped; it was taken back and goes on here`,
      ),
    ),
    Effect.tapError((error) => Effect.logError(`guest ${spec.name} does not go on: ${error.message}`)),
    Effect.retry(RESUME_AGAIN),
  );

const noteStays = answering("ram-sender", "note that the guest stays");

const discard = (spec: GuestSpec, node: string, registry: Registry): Effect.Effect<void> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.discard)).pipe(
    Effect.tap(() => Effect.sync(() => registry.remove(spec.name))),
    Effect.andThen(
      Effect.logWarning(`guest ${spec.name} was handed over to node ${node}; the copy that was left here is gone`),
    ),
    Effect.catch((error) => Effect.logError(`the old copy of guest ${spec.name} does not go: ${error.message}`)),
  );

const known = (register: OwnershipRegister, guest: string): Effect.Effect<OwnershipEntry | null> =>
  register
    .read(guest)
    .pipe(
      Effect.flatMap((entry) =>
        entry === "Unknown" ? Effect.delay(known(register, guest), LOOK_AGAIN_MS) : Effect.succeed(entry),
      ),
    );

/** The revision of our own write whose answer was lost, or null when the register shows another's. */
const ownRevision = (register: OwnershipRegister, guest: string, op: string): Effect.Effect<number | null> =>
  Effect.map(register.read(guest), (entry) =>
    entry !== null && entry !== "Unknown" && entry.record.op === op ? entry.revision : null,
  );
